import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
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

  const start = (name: string) => client.startContainer({ name, checkpoint: '', checkpointDir: '' }, deadline);
  const stop = (name: string, timeoutSeconds?: number, signal = '') =>
    client.stopContainer({ name, signal, timeoutSeconds }, deadline);
  const run = async (cmd: string[], fields: Parameters<typeof createRequest>[1] = {}) => {
    const { id } = await client.createContainer(createRequest(cmd, fields), deadline);
    await start(id);
    return id;
  };

  it('writes hosts, hostname and resolv.conf', async () => {
    const id = await run(['cat', '/etc/hostname', '/etc/resolv.conf', '/etc/hosts'], {
      config: { hostname: 'box' },
      hostConfig: { networkMode: 'front' },
    });
    expect(await waitFor(client, id)).toBe(0);
    const text = await readLog(client, id);
    expect(text).toContain('box\nnameserver 192.0.2.53\n127.0.0.1\tlocalhost\n');
    expect(text).toContain('10.9.0.2\tbox\n');
    await remove(id);
  });

  it('says what dockerd says when the start fails, and undoes it', async () => {
    const codeOf = async (cmd: string[], config: Partial<container.ContainerConfig> = {}) => {
      const { id } = await client.createContainer(createRequest(cmd, { config }), deadline);
      const failure: unknown = await start(id).catch((error: unknown) => error);
      const { state } = await inspect(id);
      expect(state).toMatchObject({ status: ContainerStatus.CREATED, pid: 0, error: (failure as Error).message });
      await remove(id);
      return [state.exitCode, (failure as { kind: string }).kind, (failure as Error).message] as const;
    };
    const missing = await codeOf(['nosuchprogram']);
    expect(missing.slice(0, 2)).toEqual([127, 'invalidArgument']);
    expect(missing[2]).toMatch(
      /^failed to create task for container: failed to create shim task: .*exec: "nosuchprogram": executable file not found in \$PATH/,
    );
    expect((await codeOf(['/etc/passwd'])).slice(0, 2)).toEqual([126, 'invalidArgument']);
    expect((await codeOf(['/etc'])).slice(0, 2)).toEqual([126, 'invalidArgument']);
    expect(await codeOf(['true'], { user: 'ghost' })).toEqual([
      128,
      'invalidArgument',
      'unable to find user ghost: no matching entries in passwd file',
    ]);
    expect(service.leftovers()).toEqual([]);
  });

  it('creates only what could work', async () => {
    const create = (cmd: string[], fields: Parameters<typeof createRequest>[1]) =>
      client.createContainer(createRequest(cmd, fields), deadline);
    const before = (await client.listContainers({}, deadline)).containers.length;
    await expect(create(['true'], { name: '-x' })).rejects.toThrow(
      'Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed',
    );
    await expect(create(['true'], { image: 'nothing' })).rejects.toThrow('No such image: nothing:latest');
    await expect(create(['true'], { hostConfig: { networkMode: 'nowhere' } })).rejects.toThrow(
      'network nowhere not found',
    );
    await expect(create(['true'], { config: { workingDir: 'x' } })).rejects.toThrow(
      "the working directory 'x' is invalid",
    );
    await expect(create([], { image: 'busybox', config: { entrypoint: [''], hasEntrypoint: true } })).rejects.toThrow(
      'no command specified',
    );
    await expect(
      create(['true'], {
        hostConfig: {
          mounts: [container.MountRequest.fromPartial({ type: 'bind', source: '/no/such', target: '/x' })],
        },
      }),
    ).rejects.toThrow('invalid mount config for type "bind": bind source path does not exist: /no/such');
    expect((await client.listContainers({}, deadline)).containers).toHaveLength(before);
    expect(service.peers.images.layers.size).toBe(before);
    expect(service.peers.volumes.volumes.size).toBe(0);
  });

  it('gives a name to one of many', async () => {
    const tries = await Promise.allSettled(
      Array.from({ length: 20 }, () => client.createContainer(createRequest(['true'], { name: 'wanted' }), deadline)),
    );
    const won = tries.filter((one) => one.status === 'fulfilled');
    expect(won).toHaveLength(1);
    const { id } = await inspect('wanted');
    for (const one of tries) {
      if (one.status === 'fulfilled') continue;
      expect((one.reason as Error).message).toMatch(
        new RegExp(
          `^Conflict. The container name "/wanted" is already in use by container "${id}". You have to remove \\(or rename\\) that container to be able to reuse that name.$`,
        ),
      );
    }
    await remove('wanted');
  });

  it('stops with the signal, kills after the timeout, and answers for what is stopped', async () => {
    const polite = await run(['sh', '-c', 'trap "exit 3" TERM; echo ready; while :; do sleep 0.05; done']);
    await expect.poll(() => readLog(client, polite), { timeout: 10_000 }).toBe('ready\n');
    expect(await stop(polite)).toMatchObject({ outcome: StopOutcome.STOPPED });
    expect(await inspect(polite)).toMatchObject({
      state: { status: ContainerStatus.EXITED, exitCode: 3 },
      manuallyStopped: true,
    });
    expect(await stop(polite)).toMatchObject({ outcome: StopOutcome.ALREADY_STOPPED });
    const stubborn = await run(['sh', '-c', 'trap "" TERM; while :; do sleep 0.05; done']);
    expect(await start(stubborn)).toMatchObject({ outcome: StartOutcome.ALREADY_STARTED });
    await stop(stubborn, 0);
    expect((await inspect(stubborn)).state.exitCode).toBe(137);
    await expect(client.killContainer({ name: stubborn, signal: '' }, deadline)).rejects.toThrow(
      `cannot kill container: ${stubborn}: container ${stubborn} is not running`,
    );
    await start(stubborn);
    await expect(client.killContainer({ name: stubborn, signal: 'NOPE' }, deadline)).rejects.toThrow(
      'invalid signal: NOPE',
    );
    await client.killContainer({ name: stubborn, signal: 'KILL' }, deadline);
    expect((await inspect(stubborn)).state.status).toBe(ContainerStatus.EXITED);
    await Promise.all([remove(polite), remove(stubborn)]);
  });

  it('removes by force only what runs, and tells why not', async () => {
    const id = await run(['sleep', '100'], { name: 'busy' });
    await expect(remove('busy')).rejects.toThrow(
      'cannot remove container "/busy": container is running: stop the container before removing or force remove',
    );
    await client.pauseContainer({ name: 'busy' }, deadline);
    await expect(client.pauseContainer({ name: 'busy' }, deadline)).rejects.toThrow(
      `Container ${id} is already paused`,
    );
    await expect(remove('busy')).rejects.toThrow(
      'cannot remove container "/busy": container is paused and must be unpaused first',
    );
    await expect(start('busy')).rejects.toThrow('cannot start a paused container, try unpause instead');
    await client.unpauseContainer({ name: 'busy' }, deadline);
    await client.pauseContainer({ name: 'busy' }, deadline);
    const removed = waitFor(client, 'busy', WaitCondition.REMOVED);
    await remove('busy', { force: true });
    expect(await removed).toBe(137);
    expect(service.leftovers()).toEqual([]);
  });

  it('restarts, keeps the name space of its log, and renames', async () => {
    const id = await run(['sh', '-c', 'echo here; exec sleep 100'], { name: 'again' });
    const { pid } = (await inspect(id)).state;
    await client.restartContainer({ name: 'again', signal: 'KILL', timeoutSeconds: 5 }, deadline);
    const after = await inspect(id);
    expect(after.state.status).toBe(ContainerStatus.RUNNING);
    expect(after.state.pid).not.toBe(pid);
    await expect(client.renameContainer({ name: 'again', newName: 'again' }, deadline)).rejects.toThrow(
      'Renaming a container with the same name as its current name',
    );
    await client.renameContainer({ name: 'again', newName: 'other' }, deadline);
    await expect(inspect('again')).rejects.toThrow('No such container: again');
    expect((await inspect('other')).id).toBe(id);
    await remove('other', { force: true });
  });

  it('follows restart policies and stops when told to', async () => {
    const id = await run(['false'], { hostConfig: { restartPolicy: { name: 'on-failure', maximumRetryCount: 2 } } });
    await expect.poll(async () => (await inspect(id)).state.status, { timeout: 10_000 }).toBe(ContainerStatus.EXITED);
    expect(await inspect(id)).toMatchObject({ restartCount: 2, state: { exitCode: 1 } });
    const always = await run(['true'], { hostConfig: { restartPolicy: { name: 'always', maximumRetryCount: 0 } } });
    await expect.poll(async () => (await inspect(always)).restartCount, { timeout: 10_000 }).toBeGreaterThan(1);
    await stop(always);
    const { restartCount, state } = await inspect(always);
    expect(state.status).toBe(ContainerStatus.EXITED);
    await remove(id);
    expect((await inspect(always)).restartCount).toBe(restartCount);
    await remove(always);
  });

  it('removes by itself what asked for it, with its anonymous volumes', async () => {
    const { id } = await client.createContainer(
      createRequest(['sh', '-c', 'touch /data/x; exit 4'], {
        config: { volumes: ['/data'] },
        hostConfig: { autoRemove: true, binds: ['kept:/kept'] },
      }),
      deadline,
    );
    expect([...service.peers.volumes.volumes.values()].map((v) => v.anonymous).sort()).toEqual([false, true]);
    const removed = waitFor(client, id, WaitCondition.REMOVED);
    await start(id);
    expect(await removed).toBe(4);
    expect([...service.peers.volumes.volumes.keys()]).toEqual(['kept']);
    service.peers.volumes.volumes.clear();
    const { id: failing } = await client.createContainer(
      createRequest(['nosuch'], { hostConfig: { autoRemove: true } }),
      deadline,
    );
    await expect(start(failing)).rejects.toThrow('executable file not found');
    await expect(inspect(failing)).rejects.toThrow('No such container');
    expect(service.leftovers()).toEqual([]);
  });

  it('copies image content into fresh volumes and mounts binds and tmpfs', async () => {
    service.peers.images.add('data', { volumes: ['/srv'] }, (dir) => {
      mkdirSync(join(dir, 'srv'));
      writeFileSync(join(dir, 'srv/index'), 'from the image');
    });
    const host = join(service.root, 'host-made-by-start');
    const id = await run(
      ['sh', '-c', 'cat /srv/index; echo x > /b/y; stat -f -c %T /t; touch /ro/z || echo readonly'],
      {
        image: 'data',
        hostConfig: { binds: [`${host}:/b`, `${host}:/ro:ro`], tmpfs: { '/t': 'size=1m' } },
      },
    );
    expect(await waitFor(client, id)).toBe(0);
    const text = await readLog(client, id);
    expect(text).toContain('from the image');
    expect(text).toContain('tmpfs');
    expect(text).toContain('readonly');
    expect(readFileSync(join(host, 'y'), 'utf8')).toBe('x\n');
    await remove(id, { volumes: true });
    expect(service.peers.volumes.volumes.size).toBe(0);
  });

  it('attaches before the start, passes input and its end, and tells the exit code', async () => {
    const { id } = await client.createContainer(
      createRequest(['sh', '-c', 'cat; exit 5'], { config: { openStdin: true, stdinOnce: true } }),
      deadline,
    );
    const frames: container.AttachContainerResponse[] = [];
    let attached: () => void = () => undefined;
    const isAttached = new Promise<void>((resolve) => (attached = resolve));
    const requests = async function* (): AsyncGenerator<container.AttachContainerRequest> {
      yield {
        frame: {
          $case: 'start',
          value: container.AttachStart.fromPartial({ name: id, stdin: true, stdout: true, stderr: true, stream: true }),
        },
      };
      await isAttached;
      await start(id);
      yield { frame: { $case: 'stdin', value: Buffer.from('hello\n') } };
    };
    for await (const message of client.attachContainer(requests())) {
      frames.push(message);
      if (message.frame?.$case === 'attached') attached();
    }
    const output = Buffer.concat(frames.flatMap(({ frame }) => (frame?.$case === 'output' ? [frame.value] : [])));
    expect(output.subarray(8).toString()).toBe('hello\n');
    expect(frames.at(-1)?.frame).toEqual({ $case: 'exited', value: { exitCode: 5 } });
    await remove(id);
  });

  it('takes no harm from a client with input that goes away while it does not read', async () => {
    const unhandled: unknown[] = [];
    const note = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', note);
    const { id } = await client.createContainer(
      createRequest(['yes'], { config: { openStdin: true, stdinOnce: true } }),
      deadline,
    );
    const left = new AbortController();
    const requests = async function* (): AsyncGenerator<container.AttachContainerRequest> {
      const value = container.AttachStart.fromPartial({ name: id, stdin: true, stdout: true, stream: true });
      yield { frame: { $case: 'start', value } };
      await new Promise((resolve) => left.signal.addEventListener('abort', resolve));
    };
    const messages = client.attachContainer(requests(), { signal: left.signal });
    expect((await messages.next()).value).toMatchObject({ frame: { $case: 'attached' } });
    await start(id);
    // The container stands still when nobody reads and every buffer is full.
    let before = -1;
    await expect
      .poll(
        async () => {
          const { pid } = (await inspect(id)).state;
          const now = Number(/^wchar: (\d+)$/m.exec(readFileSync(`/proc/${String(pid)}/io`, 'utf8'))?.[1]);
          const isStill = now > 0 && now === before;
          before = now;
          return isStill;
        },
        { timeout: 20_000, interval: 200 },
      )
      .toBe(true);
    left.abort();
    await messages.next().catch(() => undefined);
    // What was written while nobody read is gone, the container goes on.
    await expect.poll(async () => (await inspect(id)).state.status).toBe(ContainerStatus.RUNNING);
    await remove(id, { force: true });
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
  });

  it('publishes each port once', async () => {
    const portBindings = [{ containerPort: '80/tcp', hostPorts: [{ hostIp: '', hostPort: '18080' }] }];
    const first = await run(['sleep', '100'], { hostConfig: { networkMode: 'bridge', portBindings } });
    const { id: second } = await client.createContainer(
      createRequest(['true'], { hostConfig: { networkMode: 'bridge', portBindings } }),
      deadline,
    );
    await expect(start(second)).rejects.toThrow('port is already allocated');
    expect((await inspect(first)).networkSettings).toMatchObject({
      networks: [{ network: 'bridge', endpoint: { ipv4Address: '10.9.0.2' } }],
      ports: [{ hostPort: 18080 }],
    });
    await remove(first, { force: true });
    await start(second);
    await waitFor(client, second);
    await remove(second);
  });

  it('shares the network of another container', async () => {
    const first = await run(['sleep', '100'], { hostConfig: { networkMode: 'front' } });
    const second = await run(['cat', '/etc/hostname'], {
      hostConfig: { networkMode: `container:${first.slice(0, 12)}` },
    });
    await waitFor(client, second);
    expect(await readLog(client, second)).toBe(`${first.slice(0, 12)}\n`);
    await remove(first, { force: true });
    await expect(start(second)).rejects.toThrow();
    await remove(second);
  });

  it('resolves users and makes the working directory', async () => {
    const id = await run(['sh', '-c', 'id -u; id -G; pwd'], {
      config: { user: 'web', workingDir: '/srv/deep' },
      hostConfig: { groupAdd: ['7'] },
    });
    await waitFor(client, id);
    expect(await readLog(client, id)).toBe('1000\n1000 7 50\n/srv/deep\n');
    await remove(id);
  });

  it('shows every change to watchers, in order', async () => {
    const stop = new AbortController();
    const seen: string[] = [];
    let isSynced: () => void = () => undefined;
    const synced = new Promise<void>((resolve) => (isSynced = resolve));
    let last = 0n;
    const watching = (async () => {
      for await (const { change, revision } of client.watchContainers({}, { signal: stop.signal })) {
        expect(revision).toBeGreaterThanOrEqual(last);
        last = revision;
        if (change?.$case === 'synced') {
          isSynced();
          seen.length = 0;
        } else if (change?.$case === 'removed') seen.push('removed');
        else if (change?.$case === 'upsert') seen.push(String(change.value.state?.status));
      }
    })().catch(() => undefined);
    await synced;
    const id = await run(['true']);
    await waitFor(client, id);
    const { revision } = await remove(id);
    await expect.poll(() => last).toBeGreaterThanOrEqual(revision);
    stop.abort();
    await watching;
    const { CREATED, RUNNING, EXITED, REMOVING } = ContainerStatus;
    expect(seen).toEqual([CREATED, RUNNING, EXITED, REMOVING].map(String).concat('removed'));
  });

  it('does a repeated request once', async () => {
    const request = createRequest(['true'], { name: 'once' });
    const options = { ...deadline, requestId: 'aaaa-1' };
    const first = await client.createContainer(request, options);
    expect(await client.createContainer(request, options)).toEqual(first);
    await remove('once');
  });

  it('tells what is missing and what is ambiguous', async () => {
    await expect(inspect('nothing')).rejects.toThrow('No such container: nothing');
    await expect(client.listProcesses({ name: 'x', psArgs: '' }, deadline)).rejects.toMatchObject({ kind: 'notFound' });
    await expect(client.statPath({ name: 'x', path: '/' }, deadline)).rejects.toMatchObject({ kind: 'notFound' });
    const { id } = await client.createContainer(
      createRequest(['true'], { hostConfig: { logConfig: { type: 'none', config: {} } } }),
      deadline,
    );
    await expect(readLog(client, id)).rejects.toThrow('configured logging driver does not support reading');
    await remove(id);
  });
});
