import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLogger } from '@flotilla/log';
import type { events } from '@flotilla/proto';
import { MemoryDisk, Store } from '@flotilla/store';
import { startNats, waitFor } from '@flotilla/testkit';
import type { TestNats } from '@flotilla/testkit';
import { EventReader, ensureStream, startOutboxPublisher } from '@flotilla/events';
import type { ReadEventsOptions } from '@flotilla/events';

const engineId = '0b7c9a4e-6f0d-4e52-9d46-2f6f8f0a1c11';
const log = createLogger({ service: 'test', level: 'silent' });
const storeOptions = (service: string) => ({ service, schemaVersion: 1 });
const nowNs = () => BigInt(Date.now()) * 1_000_000n;

const emit = (store: Store, actorId: string, type = 'volume') =>
  store.commit((batch) => batch.emit({ type, action: 'create', actorId, attributes: { driver: 'local' } }));

describe('the event stream', () => {
  let nats: TestNats;
  const cleanup: AsyncDisposable[] = [];

  beforeEach(async () => {
    nats = await startNats();
    await ensureStream(nats);
  });

  afterEach(async () => {
    for (const item of cleanup.splice(0).reverse()) await item[Symbol.asyncDispose]();
    await nats[Symbol.asyncDispose]();
  });

  const use = <T extends AsyncDisposable>(item: T): T => {
    cleanup.push(item);
    return item;
  };
  const makeStore = (service = 'volume') => use(Store.memory(storeOptions(service)));
  const publish = (store: Store, address: TestNats | null = nats) =>
    use(startOutboxPublisher(store.outbox, address, log, { engineId }));

  async function openReader(): Promise<EventReader> {
    const reader = use(new EventReader(nats, log, { engineId }));
    await waitFor(() => reader.isConnected, { what: 'the reader to connect' });
    return reader;
  }

  /** Reads in the background into an array. */
  async function follow(reader: EventReader, options: ReadEventsOptions = {}) {
    const seen: events.Event[] = [];
    const stop = new AbortController();
    const stream = await reader.read({ ...options, signal: stop.signal });
    const done = (async () => {
      for await (const event of stream) seen.push(event);
    })();
    use({
      [Symbol.asyncDispose]: async () => {
        stop.abort();
        await done;
      },
    });
    return { seen, done, actors: () => seen.map(({ actorId }) => actorId) };
  }

  it('carries what was committed, whole, to a following reader', async () => {
    const store = makeStore();
    publish(store);
    const { seen } = await follow(await openReader());
    await emit(store, 'data');
    await waitFor(() => seen.length === 1, { what: 'the event' });
    expect(seen[0]).toMatchObject({
      id: 'volume-1',
      type: 'volume',
      action: 'create',
      actorId: 'data',
      attributes: { driver: 'local' },
      scope: 'local',
      nodeId: engineId,
    });
    expect(Math.abs(Number(seen[0]?.timeNs ?? 0n) / 1e6 - Date.now())).toBeLessThan(5000);
  });

  it('publishes a thousand events in order and flushes', async () => {
    const store = makeStore();
    const publisher = publish(store);
    const since = nowNs();
    for (let at = 0; at < 1000; at += 1) void emit(store, `v${at}`);
    await waitFor(() => store.outbox.lastSequence === 1000n, { what: 'the commits' });
    await store.outbox.flush();
    expect(publisher.state).toMatchObject({ connected: true, published: 1000n, waiting: 0n, dropped: 0n });
    const stream = await (await openReader()).read({ since, until: nowNs() });
    const actors: string[] = [];
    for await (const event of stream) actors.push(event.actorId);
    expect(actors).toEqual(Array.from({ length: 1000 }, (_, at) => `v${at}`));
  });

  it('answers since and until by the time of the event and then ends', async () => {
    const store = makeStore();
    const times: bigint[] = [];
    for (const actor of ['a', 'b', 'c']) {
      await emit(store, actor);
      times.push((await store.outbox.read(BigInt(times.length), 1))[0]?.event.timeNs ?? 0n);
    }
    await delay(20);
    // Published long after they happened.
    publish(store);
    await store.outbox.flush();
    const reader = await openReader();
    const read = async (options: ReadEventsOptions) => {
      const actors: string[] = [];
      for await (const event of await reader.read(options)) actors.push(event.actorId);
      return actors;
    };
    expect(await read({ since: times[1] ?? 0n, until: nowNs() })).toEqual(['b', 'c']);
    expect(await read({ since: 0n, until: times[1] ?? 0n })).toEqual(['a', 'b']);
    expect(await read({ since: 0n, until: 1n })).toEqual([]);
    expect(await read({ since: 0n, until: nowNs(), type: 'volume' })).toEqual(['a', 'b', 'c']);
    expect(await read({ since: 0n, until: nowNs(), type: 'container' })).toEqual([]);
  });

  it('ends by itself when until lies ahead', async () => {
    const store = makeStore();
    publish(store);
    const { seen, done } = await follow(await openReader(), { until: nowNs() + 700_000_000n });
    await emit(store, 'before');
    await done;
    await emit(store, 'after');
    expect(seen.map(({ actorId }) => actorId)).toEqual(['before']);
  });

  it('orders events of two services by the hybrid clock', async () => {
    const container = makeStore('container');
    const volume = makeStore('volume');
    const { actors } = await follow(await openReader());
    await emit(volume, 'mounted-first');
    container.clock.observe(volume.clock.now());
    await emit(container, 'started-second', 'container');
    // The later event's publisher is the first to get through.
    publish(container);
    await container.outbox.flush();
    publish(volume);
    await waitFor(() => actors().length === 2, { what: 'both events' });
    expect(actors()).toEqual(['mounted-first', 'started-second']);
  });

  it('starts without NATS and catches up', async () => {
    await nats.kill();
    const store = makeStore();
    const publisher = publish(store);
    await emit(store, 'a');
    await emit(store, 'b');
    expect(publisher.state).toMatchObject({ connected: false, waiting: 2n });
    await expect(store.outbox.flush(50)).rejects.toMatchObject({ kind: 'deadlineExceeded' });
    const reader = use(new EventReader(nats, log, { engineId }));
    await expect(reader.read()).rejects.toMatchObject({ kind: 'unavailable' });
    await nats.restart();
    await store.outbox.flush(10_000);
    await waitFor(() => reader.isConnected, { what: 'the reader to connect' });
    const { actors } = await follow(reader, { since: 0n });
    await waitFor(() => actors().length === 2, { what: 'both events' });
    expect(actors()).toEqual(['a', 'b']);
  });

  it('loses and doubles nothing when NATS is killed and started in mid stream', async () => {
    const store = makeStore();
    publish(store);
    const reader = await openReader();
    const { actors } = await follow(reader);
    const expected: string[] = [];
    for (let round = 0; round < 3; round += 1) {
      for (let at = 0; at < 200; at += 1) {
        const actor = `r${round}-${at}`;
        expected.push(actor);
        await emit(store, actor);
        if (at === 60) await nats.kill();
        if (at === 120) await nats.restart();
      }
      await waitFor(() => actors().length >= expected.length, { timeoutMs: 20_000, what: `round ${round}` });
    }
    await delay(200);
    expect(actors()).toEqual(expected);
  });

  it('gives each event once although a service publishes its last ten seconds again at its start', async () => {
    const disk = new MemoryDisk();
    const reader = await openReader();
    const { actors } = await follow(reader);
    const expected: string[] = [];
    for (let start = 0; start < 3; start += 1) {
      const store = await Store.openMemory(disk, storeOptions('volume'));
      const publisher = startOutboxPublisher(store.outbox, nats, log, { engineId });
      const actor = `start-${start}`;
      expected.push(actor);
      await emit(store, actor);
      await store.outbox.flush();
      expect(publisher.state.published).toBe(BigInt(expected.length));
      await publisher[Symbol.asyncDispose]();
      await store.close();
    }
    await waitFor(() => actors().length >= 3, { what: 'three events' });
    const again = await follow(reader, { since: 0n });
    await waitFor(() => again.actors().length >= 3, { what: 'three events of history' });
    await delay(150);
    expect(actors()).toEqual(expected);
    expect(again.actors()).toEqual(expected);
  });

  it('refills what NATS lost', async () => {
    const disk = new MemoryDisk();
    {
      const store = await Store.openMemory(disk, storeOptions('volume'));
      const publisher = startOutboxPublisher(store.outbox, nats, log, { engineId });
      await emit(store, 'kept-by-the-outbox');
      await store.outbox.flush();
      await publisher[Symbol.asyncDispose]();
      await store.close();
    }
    // A new NATS with an empty store: as if nothing had reached its disk.
    await nats[Symbol.asyncDispose]();
    nats = await startNats();
    await ensureStream(nats);
    const store = use(await Store.openMemory(disk, storeOptions('volume')));
    publish(store);
    const { actors } = await follow(await openReader(), { since: 0n });
    await waitFor(() => actors().length === 1, { what: 'the event' });
    expect(actors()).toEqual(['kept-by-the-outbox']);
  });

  it('goes on after NATS hung', async () => {
    const store = makeStore();
    publish(store);
    const { actors } = await follow(await openReader());
    await emit(store, 'before');
    await waitFor(() => actors().length === 1, { what: 'the first event' });
    nats.pause();
    await emit(store, 'during');
    await delay(300);
    nats.resume();
    await emit(store, 'after');
    await waitFor(() => actors().length === 3, { timeoutMs: 20_000, what: 'all events' });
    expect(actors()).toEqual(['before', 'during', 'after']);
  });

  it('takes events whose action would be no subject', async () => {
    const store = makeStore('container');
    publish(store);
    const { seen } = await follow(await openReader(), { type: 'container' });
    const action = 'exec_create: sh -c "sleep 1 > /dev/null"';
    await store.commit((batch) => batch.emit({ type: 'container', action, actorId: 'c', attributes: {} }));
    await waitFor(() => seen.length === 1, { what: 'the event' });
    expect(seen[0]?.action).toBe(action);
  });

  it('does not let one oversized event hold up the others', async () => {
    const store = makeStore();
    publish(store);
    const { actors } = await follow(await openReader());
    await store.commit((batch) =>
      batch.emit({ type: 'volume', action: 'create', actorId: 'big', attributes: { label: 'x'.repeat(2 << 20) } }),
    );
    await emit(store, 'small');
    await waitFor(() => actors().length === 1, { what: 'the small event' });
    expect(actors()).toEqual(['small']);
  });

  it('keeps outboxes small without any NATS configured', async () => {
    const store = makeStore();
    publish(store, null);
    await emit(store, 'a');
    await store.outbox.flush(100);
    const reader = use(new EventReader(null, log, { engineId }));
    await expect(reader.read()).rejects.toMatchObject({ kind: 'unavailable' });
  });

  it('holds a slow reader without keeping the stream in memory, and stops at once', async () => {
    const store = makeStore();
    publish(store);
    const since = nowNs();
    for (let at = 0; at < 3000; at += 1) void emit(store, `v${at}`);
    await waitFor(() => store.outbox.lastSequence === 3000n, { what: 'the commits' });
    await store.outbox.flush(20_000);
    let count = 0;
    for await (const event of await (await openReader()).read({ since })) {
      expect(event.actorId).toBe(`v${count}`);
      count += 1;
      if (count % 500 === 0) await delay(10);
      if (count === 3000) break;
    }
    expect(count).toBe(3000);
  });
});
