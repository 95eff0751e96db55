import { ensureStream, EventReader } from '@flotilla/events';
import { container, type events } from '@flotilla/proto';
import { startNats, waitFor as waitUntil } from '@flotilla/testkit';
import { describe, expect, it } from 'vitest';
import { canRun, createRequest, deadline, engineId, log, makeContainerService, waitFor } from './container-fixture.js';

const { WaitCondition } = container;

describe.skipIf(!canRun)('events of containers (needs root, shim, runc, busybox)', () => {
  it('come in the order and with the attributes of dockerd', async () => {
    await using nats = await startNats();
    await ensureStream(nats);
    const address = { url: nats.url, user: nats.user, pass: nats.pass };
    await using service = await makeContainerService(address);
    const { client } = service;
    await using reader = new EventReader(address, log, { engineId });
    await waitUntil(() => reader.isConnected, { what: 'the reader to connect' });
    const seen: events.Event[] = [];
    const stop = new AbortController();
    const stream = await reader.read({ signal: stop.signal });
    const reading = (async () => {
      for await (const event of stream) seen.push(event);
    })();
    const start = (name: string) => client.startContainer({ name, checkpoint: '', checkpointDir: '' }, deadline);
    const loop = ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 0.02; done'];
    const { id } = await client.createContainer(
      createRequest(loop, { name: 'one', config: { labels: { team: 'blue' } } }),
      deadline,
    );
    await start(id);
    await client.pauseContainer({ name: id }, deadline);
    await client.unpauseContainer({ name: id }, deadline);
    await client.restartContainer({ name: id, signal: '', timeoutSeconds: 5 }, deadline);
    await client.renameContainer({ name: id, newName: 'two' }, deadline);
    await client.stopContainer({ name: id, signal: '', timeoutSeconds: 5 }, deadline);
    await start(id);
    await client.killContainer({ name: id, signal: 'KILL' }, deadline);
    await client.removeContainer({ name: id, force: false, volumes: false, link: false }, deadline);
    const request = createRequest(['false'], { name: 'three', hostConfig: { autoRemove: true } });
    const { id: brief } = await client.createContainer(request, deadline);
    const removed = waitFor(client, brief, WaitCondition.REMOVED);
    await start(brief);
    await removed;
    await waitUntil(() => seen.filter(({ action }) => action === 'destroy').length === 2, { what: 'all events' });
    stop.abort();
    await reading;
    const actionsOf = (actor: string) => seen.filter(({ actorId }) => actorId === actor).map(({ action }) => action);
    expect(actionsOf(id)).toEqual(
      'create start pause unpause kill die stop start restart rename kill die stop start kill die destroy'.split(' '),
    );
    expect(actionsOf(brief)).toEqual(['create', 'start', 'die', 'destroy']);
    const find = (actor: string, action: string) =>
      seen.find((event) => event.actorId === actor && event.action === action);
    expect(find(id, 'create')).toMatchObject({
      type: 'container',
      attributes: { image: 'busybox', name: 'one', team: 'blue' },
    });
    expect(find(id, 'kill')?.attributes).toMatchObject({ signal: '15' });
    expect(find(id, 'rename')?.attributes).toMatchObject({ oldName: '/one', name: 'two' });
    expect(find(brief, 'die')?.attributes).toEqual({
      execDuration: '0',
      exitCode: '1',
      image: 'busybox',
      name: 'three',
    });
  });
});
