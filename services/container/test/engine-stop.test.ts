import { container } from '@flotilla/proto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { canRun, createRequest, deadline, makeContainerService, readLog } from './container-fixture.js';

const { ContainerStatus } = container;
const always = { name: 'always', maximumRetryCount: 0 };

describe.skipIf(!canRun)('stop of all containers (needs root, shim, runc, busybox)', () => {
  let service: Awaited<ReturnType<typeof makeContainerService>>;
  beforeEach(async () => {
    service = await makeContainerService();
  });
  afterEach(async () => {
    await service[Symbol.asyncDispose]();
  });

  const run = async (name: string, script: string, hostConfig: Partial<container.HostConfig> = {}) => {
    const request = createRequest(['sh', '-c', script], {
      name,
      hostConfig: { binds: [`${service.root}:/host`], ...hostConfig },
    });
    const { id } = await service.client.createContainer(request, deadline);
    await service.client.startContainer({ name, checkpoint: '', checkpointDir: '' }, deadline);
    await expect.poll(() => readLog(service.client, name), { timeout: 30_000 }).toContain('ready');
    return id;
  };
  const inspect = async (name: string) =>
    (await service.client.getContainer({ name, size: false }, deadline)).container;
  const stopAll = async (timeoutSeconds: number) =>
    (await service.client.stopAllContainers({ timeoutSeconds }, deadline)).stopped;
  const untilTerm = 'echo ready; while :; do sleep 0.02; done';

  it('stops dependents first and leaves no mark of a user', async () => {
    // The first to be told says so in a file; the other one looks for it when its turn comes.
    const db = await run('db', `trap 'test -e /host/web-is-gone && exit 3; exit 4' TERM; ${untilTerm}`, {
      restartPolicy: { name: 'unless-stopped', maximumRetryCount: 0 },
    });
    const web = await run('web', `trap 'touch /host/web-is-gone; exit 5' TERM; ${untilTerm}`, {
      volumesFrom: ['db'],
      restartPolicy: always,
    });
    const paused = await run('paused', `trap 'exit 6' TERM; ${untilTerm}`);
    await service.client.pauseContainer({ name: 'paused' }, deadline);
    expect((await stopAll(15)).sort()).toEqual([db, paused, web].sort());
    expect((await inspect('db'))?.state).toMatchObject({ status: ContainerStatus.EXITED, exitCode: 3 });
    expect((await inspect('web'))?.state).toMatchObject({ status: ContainerStatus.EXITED, exitCode: 5 });
    expect((await inspect('paused'))?.state).toMatchObject({ status: ContainerStatus.EXITED, exitCode: 6 });
    expect((await inspect('db'))?.manuallyStopped).toBe(false);
    // A shim takes its time to go.
    await expect.poll(() => service.leftovers()).toEqual([]);
    // Again: nothing is left to do, and nothing is started any more.
    expect(await stopAll(15)).toEqual([]);
    await expect(
      service.client.startContainer(
        { name: 'db', checkpoint: '', checkpointDir: '' },
        { ...deadline, retryUnavailableMs: 0 },
      ),
    ).rejects.toThrow('the engine is shutting down');
    await service.restart();
  });

  it('kills what does not end in its own time', async () => {
    const deaf = createRequest(['sh', '-c', `trap '' TERM; ${untilTerm}`], {
      name: 'deaf',
      config: { stopTimeoutSeconds: 0 },
    });
    await service.client.createContainer(deaf, deadline);
    await service.client.startContainer({ name: 'deaf', checkpoint: '', checkpointDir: '' }, deadline);
    await expect.poll(() => readLog(service.client, 'deaf'), { timeout: 30_000 }).toContain('ready');
    expect(await stopAll(-1)).toHaveLength(1);
    expect((await inspect('deaf'))?.state).toMatchObject({ status: ContainerStatus.EXITED, exitCode: 137 });
    await service.restart();
  });

  it('leaves a container in back-off to the next start of the engine', async () => {
    const request = createRequest(['sh', '-c', 'exit 1'], {
      name: 'failing',
      hostConfig: { restartPolicy: always },
    });
    await service.client.createContainer(request, deadline);
    await service.client.startContainer({ name: 'failing', checkpoint: '', checkpointDir: '' }, deadline);
    await expect.poll(async () => (await inspect('failing'))?.restartCount, { timeout: 30_000 }).toBeGreaterThan(2);
    await stopAll(15);
    const stopped = await inspect('failing');
    expect([ContainerStatus.RESTARTING, ContainerStatus.EXITED]).toContain(stopped?.state?.status);
    expect(stopped?.manuallyStopped).toBe(false);
    await service.restart();
  });
});
