import { describe, expect, it } from 'vitest';
import { EngineError } from '@flotilla/errors';
import { jsonCodec } from './codec.js';
import type { Codec } from './codec.js';
import { HybridClock } from './hybrid-clock.js';
import type { EngineEvent, StoredEvent } from './outbox.js';
import type { Migration } from './schema.js';
import type { Store, StoreOptions } from './store.js';

/** One place that can be opened again and again, as a directory can. */
export interface StorePlace {
  open(options: StoreOptions): Promise<Store>;
}

interface Thing {
  name: string;
  size: number;
}

const things: Codec<Thing> = jsonCodec<Thing>();
const options: StoreOptions = { service: 'volume', schemaVersion: 1 };
const created = (actorId: string): EngineEvent => ({
  type: 'volume',
  action: 'create',
  actorId,
  attributes: { driver: 'local' },
});

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

/** What every implementation of the store does; run for LevelDB and for the memory twin. */
export function describeStore(name: string, makePlace: () => Promise<StorePlace>): void {
  describe(`store: ${name}`, () => {
    it('reads back what was committed, and undefined for the rest', async () => {
      await using store = await (await makePlace()).open(options);
      const collection = store.collection('things', things);
      await store.commit((batch) => batch.put(collection, 'a', { name: 'a', size: 1 }));
      expect(await collection.get('a')).toEqual({ name: 'a', size: 1 });
      expect(await collection.get('b')).toBeUndefined();
      await store.commit((batch) => batch.delete(collection, 'a'));
      expect(await collection.get('a')).toBeUndefined();
    });

    it('tells what cannot be decoded apart from the rest', async () => {
      const place = await makePlace();
      const bytes: Codec<Uint8Array> = { encode: (value) => value, decode: (value) => Uint8Array.from(value) };
      {
        await using store = await place.open(options);
        const raw = store.collection('things', bytes);
        await store.commit((batch) => {
          batch.put(raw, 'a', Buffer.from('{"name":"a","size":1}'));
          batch.put(raw, 'b', Buffer.from('{"name":'));
          batch.put(raw, 'c', Buffer.from('{"name":"c","size":3}'));
        });
      }
      await using store = await place.open(options);
      const { entries, damaged } = await store.collection('things', things).salvage();
      expect(entries.map(([key]) => key)).toEqual(['a', 'c']);
      expect(damaged).toMatchObject([{ collection: 'things', key: 'b', reason: expect.any(String) as string }]);
      expect(Buffer.from(damaged[0]?.bytes ?? []).toString()).toBe('{"name":');
    });

    it('keeps records, revision, sequence and replies across openings', async () => {
      const place = await makePlace();
      let revision = 0n;
      {
        await using store = await place.open(options);
        const collection = store.collection('things', things);
        revision = await store.commit((batch) => {
          batch.put(collection, 'a', { name: 'a', size: 1 });
          batch.emit(created('a'));
          batch.reply('request-1', Buffer.from('done'));
        });
      }
      await using store = await place.open(options);
      const collection = store.collection('things', things);
      expect(await collection.all()).toEqual([['a', { name: 'a', size: 1 }]]);
      expect(store.revision).toBe(revision);
      expect(Buffer.from((await store.replies.get('request-1')) ?? []).toString()).toBe('done');
      expect((await store.outbox.read(0n, 10)).map(({ event }) => event.id)).toEqual(['volume-1']);
      expect(await store.commit((batch) => batch.emit(created('b')))).toBe(revision + 1n);
      expect((await store.outbox.read(1n, 10)).map(({ event }) => event.id)).toEqual(['volume-2']);
    });

    it('orders keys by their bytes and selects by prefix, bounds, direction and limit', async () => {
      await using store = await (await makePlace()).open(options);
      const collection = store.collection('things', things);
      const other = store.collection('things-2', things);
      // U+FF5E sorts before U+1F600 in UTF-8, behind it in UTF-16.
      const keys = ['', 'a', 'a!b', 'a/1', 'a/2', 'b', '\uff5e', '\u{1f600}'];
      await store.commit((batch) => {
        for (const key of [...keys].reverse()) batch.put(collection, key, { name: key, size: 0 });
        batch.put(other, 'a', { name: 'other', size: 0 });
      });
      const select = async (range: Parameters<typeof collection.entries>[0]) =>
        (await collect(collection.entries(range))).map(([key]) => key);
      expect(await select({})).toEqual(keys);
      expect(await select({ reverse: true })).toEqual([...keys].reverse());
      expect(await select({ prefix: 'a' })).toEqual(['a', 'a!b', 'a/1', 'a/2']);
      expect(await select({ prefix: 'a/' })).toEqual(['a/1', 'a/2']);
      expect(await select({ gte: 'a/2', lt: '\uff5e' })).toEqual(['a/2', 'b']);
      expect(await select({ prefix: 'a', gte: 'a/', limit: 1 })).toEqual(['a/1']);
      expect(await select({ prefix: 'a', reverse: true, limit: 2 })).toEqual(['a/2', 'a/1']);
      expect(await select({ limit: 0 })).toEqual([]);
      expect(await select({ gte: 'b', lt: 'a' })).toEqual([]);
      await expect(collection.get('\ud800')).rejects.toThrow('well-formed');
    });

    it('reads a range from a snapshot and lets a reader stop early', async () => {
      await using store = await (await makePlace()).open(options);
      const collection = store.collection('things', things);
      await store.commit((batch) => {
        for (let at = 0; at < 2000; at += 1) {
          batch.put(collection, String(at).padStart(5, '0'), { name: 'x'.repeat(100), size: at });
        }
      });
      let seen = 0;
      for await (const [key] of collection.entries()) {
        if (seen === 0) await store.commit((batch) => batch.delete(collection, '01999'));
        seen += 1;
        expect(Number(key)).toBe(seen - 1);
      }
      expect(seen).toBe(2000);
      for await (const [key] of collection.entries()) {
        expect(key).toBe('00000');
        break;
      }
    });

    it('writes nothing of a batch whose builder throws', async () => {
      await using store = await (await makePlace()).open(options);
      const collection = store.collection('things', things);
      const before = store.revision;
      const failing = store.commit((batch) => {
        batch.put(collection, 'a', { name: 'a', size: 1 });
        batch.emit(created('a'));
        throw new Error('no');
      });
      await expect(failing).rejects.toThrow('no');
      expect(await collection.get('a')).toBeUndefined();
      expect(await store.outbox.read(0n, 10)).toEqual([]);
      expect(store.revision).toBe(before);
      expect(await store.commit(() => undefined)).toBe(before + 1n);
    });

    it('gives concurrent commits their own strictly increasing revisions, announced in order', async () => {
      await using store = await (await makePlace()).open(options);
      const collection = store.collection('things', things);
      const announced: { revision: bigint; events: string[] }[] = [];
      const stop = store.onCommit((revision, stored: StoredEvent[]) => {
        announced.push({ revision, events: stored.map(({ event }) => event.actorId) });
      });
      const revisions = await Promise.all(
        Array.from({ length: 600 }, (_, at) =>
          store.commit((batch) => {
            expect(batch.revision).toBe(BigInt(at) + 1n);
            batch.put(collection, `k${at}`, { name: '', size: at });
            batch.emit(created(`k${at}`));
          }),
        ),
      );
      stop();
      await store.commit(() => undefined);
      expect(revisions).toEqual(Array.from({ length: 600 }, (_, at) => BigInt(at) + 1n));
      expect(announced).toEqual(revisions.map((revision, at) => ({ revision, events: [`k${at}`] })));
      const stored = await store.outbox.read(0n, 1000);
      expect(stored.map(({ sequence }) => sequence)).toEqual(revisions);
      const times = stored.map(({ event }) => event.timeNs);
      expect(times).toEqual([...times].sort((a, b) => Number(a - b)));
      expect(new Set(times).size).toBe(600);
    });

    it('wakes the publisher once an event is durable, and flushes', async () => {
      await using store = await (await makePlace()).open(options);
      let wakes = 0;
      store.outbox.onAppend(() => {
        wakes += 1;
      });
      await store.outbox.flush();
      await store.commit((batch) => batch.emit(created('a')));
      await store.commit(() => undefined);
      expect(wakes).toBe(1);
      await expect(store.outbox.flush(1)).rejects.toMatchObject({ kind: 'deadlineExceeded' });
      const flushed = store.outbox.flush();
      store.outbox.markPublished(1n);
      await flushed;
      expect(store.outbox.publishedThrough).toBe(1n);
    });

    it('keeps published events for ten minutes, then lets them go with later commits', async () => {
      let now = 1_000_000;
      const place = await makePlace();
      {
        await using store = await place.open({ ...options, now: () => now });
        for (const actor of ['a', 'b', 'c']) await store.commit((batch) => batch.emit(created(actor)));
        store.outbox.markPublished(2n);
        now += 599_000;
        await store.commit(() => undefined);
        expect(await store.outbox.read(0n, 10)).toHaveLength(3);
        now += 2000;
        await store.commit(() => undefined);
        expect((await store.outbox.read(0n, 10)).map(({ event }) => event.actorId)).toEqual(['c']);
      }
      await using store = await place.open({ ...options, now: () => now });
      // What is still there counts as unpublished again.
      expect(store.outbox.publishedThrough).toBe(2n);
      await store.commit((batch) => batch.emit(created('d')));
      expect((await store.outbox.read(0n, 10)).map(({ event }) => event.id)).toEqual(['volume-3', 'volume-4']);
    });

    it('publishes again after a start only what NATS may not have written, after a boot all that is kept', async () => {
      let now = 1_000_000;
      const place = await makePlace();
      const publishedThrough = async (bootId: string): Promise<bigint> => {
        await using store = await place.open({ ...options, now: () => now, bootId });
        return store.outbox.publishedThrough;
      };
      {
        await using store = await place.open({ ...options, now: () => now, bootId: 'first' });
        for (const actor of ['a', 'b']) await store.commit((batch) => batch.emit(created(actor)));
        store.outbox.markPublished(2n);
        now += 10_000;
        for (const actor of ['c', 'd']) await store.commit((batch) => batch.emit(created(actor)));
        store.outbox.markPublished(4n);
      }
      expect(await publishedThrough('first')).toBe(2n);
      {
        await using store = await place.open({ ...options, now: () => now, bootId: 'first' });
        store.outbox.markPublished(4n);
        now += 10_000;
      }
      expect(await publishedThrough('first')).toBe(4n);
      expect(await publishedThrough('second')).toBe(0n);
      {
        await using store = await place.open({ ...options, now: () => now, bootId: 'first' });
        store.outbox.publishAllAgain();
        expect(store.outbox.publishedThrough).toBe(0n);
      }
      // Nobody knows whether that was a boot.
      expect(await publishedThrough('')).toBe(0n);
    });

    it('drops the oldest events when nobody takes them', async () => {
      await using store = await (await makePlace()).open({ ...options, outbox: { maxEntries: 10 } });
      for (let at = 0; at < 30; at += 1) await store.commit((batch) => batch.emit(created(`k${at}`)));
      const kept = (await store.outbox.read(0n, 100)).map(({ event }) => event.actorId);
      expect(kept.length).toBeLessThanOrEqual(11);
      expect(kept.at(-1)).toBe('k29');
      expect(store.outbox.dropped).toBeGreaterThanOrEqual(19n);
    });

    it('forgets replies after ten minutes and beyond its bounds', async () => {
      let now = 5_000_000;
      const bounded = { ...options, now: () => now, replies: { maxEntries: 5, maxBytes: 1000 } };
      const place = await makePlace();
      {
        await using store = await place.open(bounded);
        await store.commit((batch) => batch.reply('old', Buffer.from('1')));
        now += 599_999;
        expect(await store.replies.get('old')).toBeDefined();
        now += 1;
        expect(await store.replies.get('old')).toBeUndefined();
        for (let at = 0; at < 20; at += 1) await store.commit((batch) => batch.reply(`r${at}`, Buffer.from([at])));
        await store.commit(() => undefined);
        expect(store.replies.size).toBe(5);
        expect(await store.replies.get('r14')).toBeUndefined();
        expect(await store.replies.get('r19')).toEqual(Buffer.from([19]));
      }
      await using store = await place.open(bounded);
      expect(store.replies.size).toBe(5);
      await store.commit((batch) => batch.reply('big', Buffer.alloc(990)));
      await store.commit(() => undefined);
      expect(store.replies.size).toBe(1);
      expect(await store.replies.get('big')).toHaveLength(990);
    });

    it('keeps no reply for a call without a request id', async () => {
      await using store = await (await makePlace()).open(options);
      await store.commit((batch) => batch.reply('', Buffer.from('x')));
      expect(store.replies.size).toBe(0);
    });

    it('never lets event times go back across a restart, even when the wall clock does', async () => {
      const place = await makePlace();
      const at = (ns: bigint) => ({ ...options, clock: new HybridClock(() => ns) });
      {
        await using store = await place.open(at(30_000_000_000n));
        await store.commit((batch) => batch.emit(created('a')));
      }
      await using store = await place.open(at(20_000_000_000n));
      await store.commit((batch) => batch.emit(created('b')));
      const [first, second] = await store.outbox.read(0n, 10);
      expect(second?.event.timeNs).toBeGreaterThan(first?.event.timeNs ?? 0n);
    });

    it('migrates forward step by step and refuses to go back', async () => {
      const place = await makePlace();
      {
        await using store = await place.open(options);
        const collection = store.collection('things', things);
        await store.commit((batch) => batch.put(collection, 'a', { name: 'a', size: 1 }));
      }
      const resize = (to: number): Migration => ({
        to,
        async migrate(records, batch) {
          const collection = records.collection('things', things);
          for (const [key, value] of await collection.all()) {
            batch.put(collection, key, { ...value, size: value.size * 10 });
          }
        },
      });
      {
        await using store = await place.open({ ...options, schemaVersion: 3, migrations: [resize(3), resize(2)] });
        expect(await store.collection('things', things).get('a')).toEqual({ name: 'a', size: 100 });
      }
      const back = place.open({ ...options, schemaVersion: 2 });
      await expect(back).rejects.toThrow(/written by a newer version of Flotilla \(schema 3, this one understands 2\)/);
      await expect(place.open({ ...options, schemaVersion: 4 })).rejects.toThrow('no migration to schema 4');
      await expect(place.open({ ...options, service: 'image' })).rejects.toThrow(
        /holds the volume store, not the image store/,
      );
      await using store = await place.open({ ...options, schemaVersion: 3 });
      expect(await store.collection('things', things).get('a')).toEqual({ name: 'a', size: 100 });
    });

    it('finishes the commits under way when it closes and refuses later ones', async () => {
      const place = await makePlace();
      const store = await place.open(options);
      const collection = store.collection('things', things);
      const pending = store.commit((batch) => batch.put(collection, 'a', { name: 'a', size: 1 }));
      await store.close();
      expect(await pending).toBe(1n);
      await expect(store.commit(() => undefined)).rejects.toBeInstanceOf(EngineError);
      await expect(store.commit(() => undefined)).rejects.toMatchObject({ kind: 'unavailable' });
      await using again = await place.open(options);
      expect(await again.collection('things', things).get('a')).toEqual({ name: 'a', size: 1 });
    });

    it('goes on when a commit listener throws', async () => {
      await using store = await (await makePlace()).open(options);
      store.onCommit(() => {
        throw new Error('a bug');
      });
      expect(await store.commit(() => undefined)).toBe(1n);
    });
  });
}
