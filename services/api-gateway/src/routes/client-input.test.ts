import { memoryInUse } from '@flotilla/testkit';
import { expect, test } from 'vitest';
import { ClientInput } from './client-input.js';

const CHUNK_BYTES = 64 * 1024;

async function* endless(): AsyncGenerator<Buffer> {
  for (;;) yield await Promise.resolve(Buffer.allocUnsafeSlow(CHUNK_BYTES));
}

/** Hands out what `send` is given, as a client that types. */
function typed() {
  const waiting: ((next: IteratorResult<Buffer>) => void)[] = [];
  const source: AsyncIterable<Buffer> = {
    [Symbol.asyncIterator]: () => ({ next: () => new Promise((resolve) => waiting.push(resolve)) }),
  };
  const send = (text: string) => waiting.shift()?.({ done: false, value: Buffer.from(text) });
  return { source, send };
}

test('nothing of what has gone through is kept, however long a call lasts', async () => {
  const chunks = new ClientInput(endless()).chunks();
  await chunks.next();
  const before = memoryInUse();
  for (let count = 0; count < 4000; count++) await chunks.next();
  expect(memoryInUse() - before).toBeLessThan(400 * CHUNK_BYTES);
  await chunks.return(undefined);
});

test('what comes after a call is over is for the next one', async () => {
  const { source, send } = typed();
  const input = new ClientInput(source);
  const first = input.chunks();
  const asked = first.next();
  input.letGo();
  expect(await asked).toEqual({ done: true, value: undefined });
  const second = input.chunks();
  const next = second.next();
  send('word');
  expect((await next).value).toEqual(Buffer.from('word'));
  expect((await first.next()).done).toBe(true);
  expect(input.isSettled).toBe(false);
  input.noteTaken(4);
  expect(input.isSettled).toBe(true);
});

test('what comes in the moment in which a call ends is for the next one', async () => {
  const { source, send } = typed();
  const input = new ClientInput(source);
  const asked = input.chunks().next();
  send('word');
  input.letGo();
  expect((await asked).done).toBe(true);
  expect((await input.chunks().next()).value).toEqual(Buffer.from('word'));
});
