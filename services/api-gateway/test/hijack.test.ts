import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { FakeEngine } from './fake-engine.js';
import { RawConnection, send } from './http-client.js';

let engine: FakeEngine;
beforeAll(async () => {
  engine = await FakeEngine.start();
  engine.addContainer('web');
});
afterAll(() => engine[Symbol.asyncDispose]());
beforeEach(() => {
  engine.stdin.clear();
  engine.attachTty = false;
  engine.dyingAttaches = 0;
  engine.resumesAttaches = false;
  engine.diesAtInput = undefined;
  engine.resumes.length = 0;
});

const UPGRADE = 'Connection: Upgrade\r\nUpgrade: tcp\r\n';
const frame = (text: string, stream = 1): string =>
  `${String.fromCharCode(stream)}\0\0\0\0\0\0${String.fromCharCode(text.length)}${text}`;
const attachPath = '/containers/web/attach?stream=1&stdin=1&stdout=1';

for (const [form, headers, status, type] of [
  ['101', UPGRADE, 'HTTP/1.1 101 UPGRADED\r\n', 'application/vnd.docker.multiplexed-stream'],
  ['200', '', 'HTTP/1.1 200 OK\r\n', 'application/vnd.docker.raw-stream'],
] as const) {
  test(`attach in the ${form} form: input after the reply, half-close ends it`, async () => {
    const raw = new RawConnection(engine.socket);
    raw.write(`POST /v1.43${attachPath} HTTP/1.1\r\nHost: d\r\n${headers}Content-Length: 0\r\n\r\n`);
    const head = await raw.until((text) => text.includes('\r\n\r\n'));
    expect(head.startsWith(status)).toBe(true);
    expect(head).toContain(`Content-Type: ${type}\r\n`);
    expect(head).toContain('Api-Version: 1.51\r\n');
    raw.write('GET / HTTP/1.1\r\n\r\n');
    await raw.until((text) => text.endsWith(frame('GET / HTTP/1.1\r\n\r\n')));
    raw.socket.end();
    expect(await raw.all()).toBe(head + frame('GET / HTTP/1.1\r\n\r\n'));
    expect(engine.stdin.get('web')).toBe('GET / HTTP/1.1\r\n\r\n');
  });

  test(`attach in the ${form} form: input right behind the headers, half-close at once`, async () => {
    const raw = new RawConnection(engine.socket);
    raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n${headers}\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n\0\xff`);
    raw.socket.end();
    const input = 'GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n\0\xff';
    expect((await raw.all()).endsWith(frame(input))).toBe(true);
    expect(engine.stdin.get('web')).toBe(input);
  });

  test(`exec start in the ${form} form reads its body first`, async () => {
    const body = '{"Detach":false,"Tty":false}';
    const raw = new RawConnection(engine.socket);
    raw.write(
      `POST /exec/exec1/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}typed`,
    );
    const text = await raw.until((received) => received.endsWith(frame('typed')));
    expect(text.startsWith(status)).toBe(true);
    raw.socket.end();
    await raw.all();
    expect(engine.stdin.get('exec1')).toBe('typed');
  });

  test(`exec start in the ${form} form takes a chunked body in pieces`, async () => {
    const raw = new RawConnection(engine.socket);
    raw.write(
      `POST /exec/exec1/start HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n${headers}Transfer-Encoding: chunked\r\n\r\n10\r\n{"Detach":`,
    );
    await new Promise((resolve) => setImmediate(resolve));
    raw.write(' false\r\n2\r\n }\r\n0\r\n\r\nrest');
    await raw.until((received) => received.endsWith(frame('rest')));
    raw.close();
  });
}

test('with a terminal the stream is raw', async () => {
  engine.attachTty = true;
  const raw = new RawConnection(engine.socket);
  raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n${UPGRADE}\r\nls\r`);
  const text = await raw.until((received) => received.endsWith('\r\n\r\nls\r'));
  expect(text).toContain('Content-Type: application/vnd.docker.raw-stream\r\n');
  raw.close();
});

test('before 1.42 the type is raw-stream', async () => {
  const raw = new RawConnection(engine.socket);
  raw.write(`POST /v1.41${attachPath} HTTP/1.1\r\nHost: d\r\n${UPGRADE}\r\n`);
  expect(await raw.until((received) => received.includes('\r\n\r\n'))).toContain(
    'Content-Type: application/vnd.docker.raw-stream\r\n',
  );
  raw.close();
});

test('a connection that served a request before can be taken over', async () => {
  const raw = new RawConnection(engine.socket);
  raw.write('GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n');
  await raw.until((received) => received.endsWith('OK'));
  raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n\r\n`);
  await raw.until((received) => received.includes('raw-stream'));
  raw.write('x');
  await raw.until((received) => received.endsWith(frame('x')));
  raw.close();
});

test('an attach that the owner dies under is opened again, with all input', async () => {
  engine.dyingAttaches = 2;
  const raw = new RawConnection(engine.socket);
  raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n${UPGRADE}\r\nearly`);
  const text = await raw.until((received) => received.endsWith(frame('early')));
  expect(text.startsWith('HTTP/1.1 101 ')).toBe(true);
  raw.socket.end();
  await raw.all();
  expect(engine.stdin.get('web')).toBe('early');
});

test('what the owner refuses is an ordinary error reply', async () => {
  for (const headers of [UPGRADE, '']) {
    const raw = new RawConnection(engine.socket);
    raw.write(`POST /containers/nope/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n${headers}\r\n`);
    const text = await raw.all();
    expect(text).toMatch(/^HTTP\/1\.1 404 Not Found\r\n/);
    expect(text).toContain('{"message":"No such container: nope"}');
  }
  const bad = await send(engine.socket, 'POST', '/containers/web/attach?stream=1&detachKeys=shift-x');
  expect(bad).toMatchObject({ status: 400, json: { message: 'Invalid detach keys (shift-x) provided' } });
});

test('a megabyte goes both ways with its order kept', async () => {
  const raw = new RawConnection(engine.socket);
  engine.attachTty = true;
  raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n${UPGRADE}\r\n`);
  const head = await raw.until((received) => received.includes('\r\n\r\n'));
  const line = Array.from({ length: 131_072 }, (_, i) => String(i % 10)).join('');
  for (let i = 0; i < 8; i++) raw.write(line);
  raw.socket.end();
  const text = await raw.all();
  expect(text.length).toBe(head.length + 8 * line.length);
  expect(text.slice(head.length) === line.repeat(8)).toBe(true);
});

test('when the owner dies, the client is told in one line', async () => {
  const raw = new RawConnection(engine.socket);
  raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n${UPGRADE}\r\n`);
  await raw.until((received) => received.includes('\r\n\r\n'));
  await engine.stopService('container');
  expect(await raw.all()).toContain('the container service restarted');
  await engine.startService('container');
});

test('when the owner dies and the client has and gave everything, the stream goes on', async () => {
  engine.resumesAttaches = true;
  engine.diesAtInput = { text: 'two', isTaken: true };
  const raw = new RawConnection(engine.socket);
  raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n${UPGRADE}\r\n`);
  const head = await raw.until((received) => received.includes('\r\n\r\n'));
  let expected = head;
  for (const word of ['one', 'two', 'three']) {
    raw.write(word);
    expected += frame(word);
    await raw.until((received) => received === expected);
  }
  raw.socket.end();
  expect(await raw.all()).toBe(expected);
  expect(engine.resumes).toEqual([{ position: '2', exitSequence: 7n }]);
});

test('when the owner dies and nobody knows whether input has arrived, the client is told', async () => {
  engine.resumesAttaches = true;
  engine.diesAtInput = { text: 'two', isTaken: false };
  const raw = new RawConnection(engine.socket);
  raw.write(`POST ${attachPath} HTTP/1.1\r\nHost: d\r\n${UPGRADE}\r\n`);
  await raw.until((received) => received.includes('\r\n\r\n'));
  raw.write('one');
  await raw.until((received) => received.endsWith(frame('one')));
  raw.write('two');
  expect(await raw.all()).toContain('the container goes on, attach again');
  expect(engine.resumes).toEqual([]);
  // Its input ends for the container, too.
  await expect.poll(() => engine.farewells).toContainEqual({ position: '1', exitSequence: 7n });
});
