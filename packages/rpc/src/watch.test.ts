import { describe, expect, it } from 'vitest';
import { watch } from './watch.js';
import type { Changes, WatchMessage } from './watch.js';

interface Thing {
  readonly name: string;
  readonly size: number;
}

class Things {
  revision = 7n;
  readonly #things = new Map<string, Thing>([['a', { name: 'a', size: 1 }]]);
  readonly listeners = new Set<(revision: bigint, changes: Changes<Thing>) => void>();

  snapshot(): { revision: bigint; records: Thing[] } {
    return { revision: this.revision, records: [...this.#things.values()] };
  }

  subscribe(listener: (revision: bigint, changes: Changes<Thing>) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  change(...changes: [string, Thing | undefined][]): void {
    this.revision++;
    for (const [name, thing] of changes) {
      if (thing === undefined) this.#things.delete(name);
      else this.#things.set(name, thing);
    }
    for (const listener of this.listeners) listener(this.revision, changes);
  }
}

const thing = (name: string, size: number): [string, Thing] => [name, { name, size }];
const sizeOfSmall = ({ size }: Thing): number | undefined => (size < 100 ? size : undefined);

async function take(messages: AsyncIterator<WatchMessage<number>>, count: number): Promise<unknown[]> {
  const taken: unknown[] = [];
  while (taken.length < count) {
    const next = await messages.next();
    if (next.done === true) break;
    taken.push([next.value.revision, next.value.change.$case, next.value.change.value]);
  }
  return taken;
}

describe('watch', () => {
  it('tells the snapshot, then changes; what came during the snapshot is not lost', async () => {
    const things = new Things();
    const messages = watch(things, sizeOfSmall, new AbortController().signal);
    expect(await take(messages, 1)).toEqual([[7n, 'upsert', 1]]);
    things.change(thing('b', 2));
    expect(await take(messages, 2)).toEqual([
      [7n, 'synced', {}],
      [8n, 'upsert', 2],
    ]);
    const next = take(messages, 1);
    things.change(['a', undefined]);
    expect(await next).toEqual([[9n, 'removed', 'a']]);
    await messages.return();
  });

  it('folds the changes of an object while nobody reads', async () => {
    const things = new Things();
    const messages = watch(things, sizeOfSmall, new AbortController().signal);
    await take(messages, 2);
    things.change(thing('b', 2));
    things.change(thing('c', 3));
    things.change(thing('b', 4));
    things.change(thing('d', 5));
    things.change(['d', undefined]);
    expect(await take(messages, 3)).toEqual([
      [7n, 'upsert', 3],
      [7n, 'upsert', 4],
      [12n, 'removed', 'd'],
    ]);
    await messages.return();
  });

  it('gives a revision only with the last change of its batch that the caller may see', async () => {
    const things = new Things();
    const messages = watch(things, sizeOfSmall, new AbortController().signal);
    await take(messages, 2);
    things.change(thing('b', 2), thing('c', 3), thing('hidden', 100));
    expect(await take(messages, 2)).toEqual([
      [7n, 'upsert', 2],
      [8n, 'upsert', 3],
    ]);
    await messages.return();
  });

  it('ends with the signal and leaves its source, also in the middle of the snapshot', async () => {
    const things = new Things();
    const stop = new AbortController();
    const messages = watch(things, sizeOfSmall, stop.signal);
    await take(messages, 2);
    const last = messages.next();
    stop.abort();
    expect((await last).done).toBe(true);
    expect(things.listeners.size).toBe(0);

    const early = watch(things, sizeOfSmall, new AbortController().signal);
    await take(early, 1);
    await early.return();
    expect(things.listeners.size).toBe(0);
  });
});
