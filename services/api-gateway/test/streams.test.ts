import { connect } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeEngine } from './fake-engine.js';
import { send } from './http-client.js';

let engine: FakeEngine;
beforeEach(async () => {
  engine = await FakeEngine.start();
  engine.addContainer('web');
});
afterEach(() => engine[Symbol.asyncDispose]());

test('a client that does not read holds the owner back, and its end ends the call', async () => {
  engine.endlessLogs = true;
  const socket = connect(engine.socket);
  socket.write('GET /containers/web/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n');
  await new Promise((resolve) => socket.once('readable', resolve));
  // Nothing is read: the count comes to rest when every buffer on the way is full.
  let before = -1;
  await expect
    .poll(
      () => {
        const isAtRest = before === engine.endlessBytes && before > 0;
        before = engine.endlessBytes;
        return isAtRest;
      },
      { timeout: 10_000, interval: 200 },
    )
    .toBe(true);
  expect(engine.endlessBytes).toBeLessThan(32 * 1024 * 1024);
  expect(engine.endlessEnded).toBe(false);
  socket.destroy();
  await expect.poll(() => engine.endlessEnded).toBe(true);
});

test('an upload is read no faster than its owner takes it', async () => {
  let release = (): void => undefined;
  engine.archives.hold = new Promise((resolve) => (release = resolve));
  const socket = connect(engine.socket);
  socket.write('POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000000\r\n\r\n');
  const chunk = Buffer.alloc(1024 * 1024);
  let written = 0;
  while (written < 200 && socket.write(chunk)) written++;
  const drained = await Promise.race([
    new Promise((resolve) => socket.once('drain', () => resolve('drained'))),
    new Promise((resolve) => setTimeout(() => resolve('held'), 300)),
  ]);
  for (let i = 0; drained === 'drained' && i < 100; i++) {
    if (socket.write(chunk)) continue;
    const again = await Promise.race([
      new Promise((resolve) => socket.once('drain', () => resolve('drained'))),
      new Promise((resolve) => setTimeout(() => resolve('held'), 300)),
    ]);
    if (again === 'held') break;
  }
  expect(socket.writableLength).toBeGreaterThan(0);
  expect(engine.archives.loaded).toBeLessThan(4 * 1024 * 1024);
  socket.destroy();
  // The end of a client that is held back is seen when its last bytes have been taken.
  release();
  await expect.poll(() => engine.archives.failed).toBe(true);
});

test('a JSON body has a limit', async () => {
  const body = `{"Image":"${'x'.repeat(9 * 1024 * 1024)}"}`;
  expect(
    await send(engine.socket, 'POST', '/containers/create', body, { 'content-type': 'application/json' }),
  ).toMatchObject({
    status: 400,
    json: { message: 'http: request body too large' },
  });
  expect((await send(engine.socket, 'GET', '/_ping')).status).toBe(200);
});
