// The child process of the crash test: commits as fast as it can, eight at a time, and prints each number once its batch is acknowledged.
import { writeSync } from 'node:fs';
import { jsonCodec } from './codec.js';
import { Store } from './store.js';

const [dir = '', first = '0'] = process.argv.slice(2);
const store = await Store.open(dir, { service: 'volume', schemaVersion: 1, replies: { maxEntries: 1_000_000 } });
const left = store.collection('left', jsonCodec<number>());
const right = store.collection('right', jsonCodec<number>());
let next = Number(first);

async function write(): Promise<never> {
  for (;;) {
    const number = next;
    next += 1;
    await store.commit((batch) => {
      batch.put(left, String(number), number);
      batch.put(right, String(number), number);
      batch.emit({ type: 'volume', action: 'create', actorId: String(number), attributes: {} });
      batch.reply(`request-${number}`, Buffer.from(String(number)));
    });
    writeSync(1, `${number}\n`);
  }
}

await Promise.all(Array.from({ length: 8 }, write));
