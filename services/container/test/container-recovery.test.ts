import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { container } from '@flotilla/proto';
import { waitFor as until } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  canRun,
  connectContainers,
  createRequest,
  deadline,
  makeEngineRoot,
  readLog,
  waitFor,
} from './container-fixture.js';
import { ServiceProcess } from './service-process.js';

const { ContainerStatus, WaitCondition } = container;

describe.skipIf(!canRun)('kill -9 of the container service (needs root, shim, runc, busybox)', () => {
  let engine: Awaited<ReturnType<typeof makeEngineRoot>>;
  let service: ServiceProcess;
  let client: ReturnType<typeof connectContainers>;
  beforeAll(async () => {
    engine = await makeEngineRoot();
    service = new ServiceProcess(engine.config);
    client = connectContainers(`unix:${join(engine.config.execRoot, 'container.sock')}`);
    await client.listContainers({}, deadline);
  });
  afterAll(async () => {
    // Only after a failure is anything left.
    for (const { id } of (await client.listContainers({}, deadline)).containers) await remove(id);
    client.close();
    await service[Symbol.asyncDispose]();
    await engine[Symbol.asyncDispose]();
  });

  const inspect = async (name: string) => {
    const { container: shown } = await client.getContainer({ name, size: false }, deadline);
    if (shown?.state === undefined) throw new Error('no state');
    return { ...shown, state: shown.state };
  };
  const create = async (cmd: string[], fields: Parameters<typeof createRequest>[1] = {}) =>
    (await client.createContainer(createRequest(cmd, fields), deadline)).id;
  const start = (name: string) => client.startContainer({ name, checkpoint: '', checkpointDir: '' }, deadline);
  const run = async (cmd: string[], fields: Parameters<typeof createRequest>[1] = {}) => {
    const id = await create(cmd, fields);
    await start(id);
    return id;
  };
  const remove = (name: string) => client.removeContainer({ name, force: true, volumes: true, link: false }, deadline);

  it('keeps containers, their exit codes and their output', async () => {
    const flag = join(engine.root, 'go');
    const bound = { hostConfig: { binds: [`${engine.root}:/host`] } };
    const counting = await run(
      ['sh', '-c', 'i=0; while [ ! -e /host/go ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 9'],
      bound,
    );
    const ending = await run(['sh', '-c', 'sleep 0.3; exit 6']);
    const paused = await run(['sleep', '100']);
    await client.pauseContainer({ name: paused }, deadline);
    const { pid } = (await inspect(counting)).state;
    await service.killForGood();
    await expect.poll(() => existsSync(`/proc/${pid}`)).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, 500)); // the second one ends while nobody watches
    service.start();
    expect(await waitFor(client, ending)).toBe(6);
    expect((await inspect(ending)).state.status).toBe(ContainerStatus.EXITED);
    expect((await inspect(counting)).state).toMatchObject({ status: ContainerStatus.RUNNING, pid });
    expect((await inspect(paused)).state.status).toBe(ContainerStatus.PAUSED);
    await service.kill();
    writeFileSync(flag, '');
    expect(await waitFor(client, counting)).toBe(9);
    const lines = (await readLog(client, counting)).trim().split('\n');
    expect(lines).toEqual(lines.map((_, at) => `line ${at + 1}`));
    expect(lines.length).toBeGreaterThan(20);
    await client.unpauseContainer({ name: paused }, deadline);
    for (const id of [counting, ending, paused]) await remove(id);
    expect(engine.leftovers()).toEqual([]);
  });

  it('resumes a wait where it was', async () => {
    const id = await create(['sh', '-c', 'sleep 0.2; exit 8'], { hostConfig: { autoRemove: true } });
    let resumeExitSequence = 0n;
    for await (const { event } of client.waitContainer({
      name: id,
      condition: WaitCondition.REMOVED,
      resumeExitSequence,
    })) {
      if (event?.$case !== 'waiting') throw new Error('not waiting');
      resumeExitSequence = event.value.exitSequence;
      break;
    }
    await start(id);
    await service.kill();
    await expect.poll(() => inspect(id).catch(String), { timeout: 10_000 }).toContain(`No such container: ${id}`);
    const resumed: number[] = [];
    for await (const { event } of client.waitContainer({
      name: id,
      condition: WaitCondition.REMOVED,
      resumeExitSequence,
    })) {
      if (event?.$case === 'result') resumed.push(Number(event.value.exitCode));
    }
    expect(resumed).toEqual([8]);
  });

  it('answers each request once, whenever it dies', { timeout: 180_000 }, async () => {
    const lives = new AbortController();
    let kills = 0;
    let steps = 0;
    const killing = (async () => {
      while (!lives.signal.aborted) {
        await client.listContainers({}, deadline);
        const before = steps;
        // On a slow machine nothing would ever come to its end if each answer had to come between two kills.
        if (kills % 2 === 1)
          await until(() => steps > before || lives.signal.aborted, { what: 'an answer', timeoutMs: 60_000 });
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 1200));
        await service.kill();
        kills++;
      }
    })();
    const life = async (lane: number): Promise<void> => {
      for (let round = 0; round === 0 || kills < 6; round++) {
        const name = `lane-${lane}-${round}`;
        const id = await create(['sh', '-c', 'trap "exit 3" TERM; echo up; while :; do sleep 0.02; done'], {
          name,
          config: { volumes: ['/v'] },
        });
        steps++;
        expect((await start(name)).outcome).toBe(container.StartOutcome.STARTED);
        steps++;
        expect((await client.stopContainer({ name, signal: '', timeoutSeconds: 5 }, deadline)).outcome).toBe(
          container.StopOutcome.STOPPED,
        );
        steps++;
        const { exitCode } = (await inspect(name)).state;
        // 137 when nobody saw the end, 2 when the signal came before runc had given way to the program.
        if (![2, 3, 137].includes(exitCode)) throw new Error(`exit code ${exitCode}: ${await readLog(client, name)}`);
        await client.restartContainer({ name, signal: '', timeoutSeconds: 5 }, deadline);
        steps++;
        expect(await inspect(name)).toMatchObject({ id, state: { status: ContainerStatus.RUNNING } });
        await remove(name);
        steps++;
        await expect(inspect(name)).rejects.toThrow('No such container');
      }
    };
    try {
      await Promise.all([1, 2, 3].map(life));
    } catch (error) {
      kills = 1000;
      throw error;
    } finally {
      lives.abort();
      await killing;
    }
    expect((await client.listContainers({}, deadline)).containers).toEqual([]);
    await expect.poll(() => engine.leftovers(), { timeout: 10_000 }).toEqual([]);
    await expect.poll(() => engine.peers.images.layers.size, { timeout: 10_000 }).toBe(0);
    expect([...engine.peers.volumes.volumes.values()].flatMap((v) => [...v.holders])).toEqual([]);
  });

  it('releases at once what a create held that it cut off, however young', async () => {
    const { images, volumes } = engine.peers;
    images.keepsYoung = volumes.keepsYoung = true;
    let go: (() => void) | undefined;
    const isHeld = new Promise<void>((resolve) => {
      volumes.afterAcquire = () =>
        new Promise((answer) => {
          go = answer;
          resolve();
        });
    });
    const creating = create(['true'], { name: 'cut', config: { volumes: ['/v'] } });
    await isHeld;
    volumes.afterAcquire = () => Promise.resolve();
    await service.kill();
    go?.();
    // The request is repeated, and makes a container of its own.
    const id = await creating;
    await expect.poll(() => [...images.layers.keys()]).toEqual([id]);
    await expect.poll(() => [...volumes.volumes.values()].map(({ holders }) => [...holders])).toEqual([[id]]);
    await remove('cut');
    images.keepsYoung = volumes.keepsYoung = false;
    expect(engine.leftovers()).toEqual([]);
  });

  it('waits for peers that are being restarted', async () => {
    const name = 'patient';
    const outage = engine.restartPeers(700);
    await create(['true'], { name, config: { volumes: ['/v'] } });
    await outage;
    const second = engine.restartPeers(700);
    await start(name);
    await second;
    expect(await waitFor(client, name)).toBe(0);
    const third = engine.restartPeers(700);
    await remove(name);
    await third;
    expect(engine.leftovers()).toEqual([]);
  });

  it('ends what the machine lost and starts what a policy wants', async () => {
    const always = await run(['sleep', '100'], {
      hostConfig: { restartPolicy: { name: 'always', maximumRetryCount: 0 } },
    });
    const plain = await run(['sleep', '100']);
    const pids = [(await inspect(always)).state.pid, (await inspect(plain)).state.pid];
    const shims = [always, plain].map((id) => Number(readFileSync(join(engine.bundles, id, 'shim.pid'), 'utf8')));
    await service.killForGood();
    for (const pid of [...shims, ...pids]) process.kill(pid, 'SIGKILL');
    rmSync(join(engine.bundles, plain, 'config.json'));
    service.start();
    expect(await waitFor(client, plain)).toBe(137);
    await expect
      .poll(async () => (await inspect(always)).state.status, { timeout: 10_000 })
      .toBe(ContainerStatus.RUNNING);
    expect((await inspect(always)).restartCount).toBe(1);
    for (const id of [always, plain]) await remove(id);
    expect(engine.leftovers()).toEqual([]);
  });
});
