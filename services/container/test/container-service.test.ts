import { container } from '@flotilla/proto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canRun, createRequest, deadline, makeContainerService, readLog, waitFor } from './container-fixture.js';

const { StartOutcome, StopOutcome, ContainerStatus, WaitCondition } = container;

describe.skipIf(!canRun)('container service (needs root, shim, runc, busybox)', () => {
  let service: Awaited<ReturnType<typeof makeContainerService>>;
  let client: typeof service.client;
  beforeAll(async () => {
    service = await makeContainerService();
    ({ client } = service);
  });
  afterAll(() => service[Symbol.asyncDispose]());

  const inspect = async (name: string) => {
    const { container: shown } = await client.getContainer({ name, size: false }, deadline);
    if (shown?.state === undefined) throw new Error('no state');
    return { ...shown, state: shown.state };
  };
  const remove = (name: string, options: { force?: boolean; volumes?: boolean } = {}) =>
    client.removeContainer(
      { name, force: options.force ?? false, volumes: options.volumes ?? false, link: false },
      deadline,
    );

  it('runs a program from create to removal and leaves nothing', async () => {
    const { id } = await client.createContainer(
      createRequest(['sh', '-c', 'echo out; echo err >&2; exit 7'], { name: 'first' }),
      deadline,
    );
    expect(await inspect('first')).toMatchObject({ id, name: 'first', state: { status: ContainerStatus.CREATED } });
    const waiting = waitFor(client, 'first', WaitCondition.NEXT_EXIT);
    expect(await client.startContainer({ name: 'first', checkpoint: '', checkpointDir: '' }, deadline)).toMatchObject({
      outcome: StartOutcome.STARTED,
    });
    expect(await waiting).toBe(7);
    expect(await inspect(id.slice(0, 12))).toMatchObject({
      state: { status: ContainerStatus.EXITED, exitCode: 7, pid: 0 },
    });
    expect((await readLog(client, 'first')).split('\n').sort()).toEqual(['', 'err', 'out']);
    await remove('first');
    await expect(inspect('first')).rejects.toThrow('No such container: first');
    expect(service.leftovers()).toEqual([]);
    expect(service.peers.images.layers.size).toBe(0);
  });
});
