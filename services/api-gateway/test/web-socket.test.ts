import { once } from 'node:events';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { FakeEngine } from './fake-engine.js';
import { send } from './http-client.js';

let engine: FakeEngine;
beforeAll(async () => {
  engine = await FakeEngine.start();
  engine.addContainer('web');
});
afterAll(() => engine[Symbol.asyncDispose]());
beforeEach(() => {
  engine.stdin.clear();
  engine.attachTty = false;
});

interface Message {
  readonly text: string;
  readonly isBinary: boolean;
}

/** A client, with every message from the first on. */
class Client {
  readonly messages: Message[] = [];
  readonly socket: WebSocket;
  readonly closed: Promise<unknown[]>;

  constructor(path: string, headers: Record<string, string> = {}) {
    this.socket = new WebSocket(`ws+unix:${engine.socket}:${path}`, { headers });
    this.socket.on('error', () => undefined);
    this.socket.on('message', (data: Buffer, isBinary) => {
      this.messages.push({ text: data.toString('latin1'), isBinary });
    });
    this.closed = new Promise((resolve) => this.socket.on('close', (...how) => resolve(how)));
  }

  async opened(): Promise<void> {
    await once(this.socket, 'open');
  }

  async refusal(): Promise<{ status: number | undefined; body: string }> {
    const [, response] = (await once(this.socket, 'unexpected-response')) as [
      unknown,
      AsyncIterable<Buffer> & { statusCode?: number },
    ];
    let body = '';
    for await (const chunk of response) body += chunk.toString();
    this.socket.terminate();
    return { status: response.statusCode, body };
  }
}

const path = '/containers/web/attach/ws?stream=1&stdin=1&stdout=1';
const received = (client: Client) => expect.poll(() => client.messages, { interval: 5, timeout: 10_000 });

test.each([
  ['frames are taken apart', false],
  ['a terminal is raw', true],
])('messages hold the bytes of both directions: %s', async (_, tty) => {
  engine.attachTty = tty;
  const client = new Client(path);
  await client.opened();
  client.socket.send('typed \0\xff', { binary: false });
  await received(client).toEqual([{ text: Buffer.from('typed \0\xff').toString('latin1'), isBinary: true }]);
  client.socket.send(Buffer.from([0, 255]));
  await received(client).toHaveLength(2);
  expect(client.messages[1]?.text).toBe('\0\xff');
  client.socket.close();
  await client.closed;
});

test('before 1.28 output comes in text messages; before 1.42 all streams are attached', async () => {
  const client = new Client('/v1.27/containers/web/attach/ws?stream=1');
  await client.opened();
  client.socket.send('old');
  await received(client).toEqual([{ text: 'old', isBinary: false }]);
  client.socket.terminate();
  const newer = new Client('/v1.42/containers/web/attach/ws?stream=1&stdout=1');
  await newer.opened();
  // No input is wanted: the end comes at once.
  expect(await newer.closed).toEqual([1000, Buffer.alloc(0)]);
});

test('what is refused is an ordinary reply', async () => {
  expect(await new Client('/containers/nope/attach/ws?stream=1').refusal()).toEqual({
    status: 404,
    body: '{"message":"No such container: nope"}\n',
  });
  const keys = await new Client(`${path}&detachKeys=ctrl-%C3%A9`).refusal();
  expect(keys).toMatchObject({ status: 400, body: expect.stringContaining('Invalid detach keys') as string });
  expect(await send(engine.socket, 'GET', path)).toMatchObject({ status: 400 });
});

test('pages of other sites are refused, one of this host is not', async () => {
  expect(await new Client(path, { Origin: 'http://evil.example' }).refusal()).toEqual({
    status: 403,
    body: '{"message":"WebSocket requests from http://evil.example are not allowed"}\n',
  });
  const own = new Client(path, { Origin: 'http://docker:2375', Host: 'docker:2375' });
  await own.opened();
  own.socket.terminate();
});

test('a message over the limit ends the connection, not the gateway', async () => {
  const client = new Client(path);
  await client.opened();
  client.socket.send(Buffer.alloc(33 * 1024 * 1024));
  const [code] = await client.closed;
  expect([1006, 1009]).toContain(code);
  expect(await send(engine.socket, 'GET', '/_ping')).toMatchObject({ status: 200 });
});
