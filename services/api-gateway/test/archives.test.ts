import { readdirSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { ExchangeFifo } from '@flotilla/sys';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startApiGateway } from '../src/index.js';
import { FakeEngine } from './fake-engine.js';
import { send } from './http-client.js';

let engine: FakeEngine;
beforeEach(async () => {
  engine = await FakeEngine.start();
  engine.archives.saved = Buffer.alloc(3_000_001, 's');
});
afterEach(() => engine[Symbol.asyncDispose]());

const waiting = { timeout: 15_000, interval: 5 };
const exchangeDir = (): string => join(engine.dir, 'exchange');

describe.each(['there', 'another one', 'missing'])('with an exchange directory that is %s, archives', (what) => {
  beforeEach(async () => {
    if (what !== 'missing') await mkdir(exchangeDir());
    engine.archives.declines = what === 'another one';
  });
  afterEach(async () => {
    if (what !== 'missing') await expect.poll(() => readdirSync(exchangeDir()), waiting).toEqual([]);
  });
  const taken = what === 'there' ? 1 : 0;

  it('are loaded', async () => {
    expect(await send(engine.socket, 'POST', '/images/load', Buffer.alloc(3_000_001))).toMatchObject({
      status: 200,
      text: '{"stream":"Loaded image: x:latest\\n"}\r\n',
    });
    expect(engine.archives).toMatchObject({ loaded: 3_000_001, taken, sizes: taken === 1 ? [3_000_001n] : [] });
    expect((await send(engine.socket, 'POST', '/images/load', Buffer.alloc(0))).status).toBe(200);
  });

  it('are refused in the middle, and the rest is not waited for', async () => {
    const junk = Buffer.alloc(9_000_000);
    junk.write('junk');
    expect(await send(engine.socket, 'POST', '/images/load', junk)).toMatchObject({
      status: 400,
      json: { message: 'archive/tar: invalid tar header' },
    });
  });

  it('of clients that go away are not whole', async () => {
    const socket = connect(engine.socket);
    socket.write('POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000\r\n\r\n');
    socket.write(Buffer.alloc(500_000));
    await expect.poll(() => engine.archives.loaded, waiting).toBeGreaterThan(0);
    socket.destroy();
    await expect.poll(() => engine.archives.failed, waiting).toBe(true);
    expect(engine.archives.sizes).toEqual([]);
  });

  it('are saved', async () => {
    const { status, headers, text } = await send(engine.socket, 'GET', '/images/get?names=x');
    expect([status, headers['content-type'], text.length]).toEqual([200, 'application/x-tar', 3_000_001]);
    expect(engine.archives.taken).toBe(taken);
    expect(await send(engine.socket, 'GET', '/images/absent/get')).toMatchObject({
      status: 400,
      json: { message: 'No such image: absent' },
    });
  });

  it('that break off end without their end', async () => {
    engine.archives.breaksOff = true;
    await expect(send(engine.socket, 'GET', '/images/get?names=x')).rejects.toThrow('aborted');
  });
});

it('what a gateway that was killed left in the exchange directory goes with the next start', async () => {
  await mkdir(exchangeDir());
  using _left = ExchangeFifo.make(exchangeDir(), 'write');
  expect(readdirSync(exchangeDir())).toHaveLength(1);
  await engine.gateway[Symbol.asyncDispose]();
  engine.gateway = await startApiGateway(engine.config(), { events: engine.events });
  expect(readdirSync(exchangeDir())).toEqual([]);
});
