import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, link, mkdir, readdir, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { EventReader, ensureStream } from '@flotilla/events';
import { type events, volume } from '@flotilla/proto';
import { isMountPoint } from '@flotilla/sys';
import { startNats, waitFor } from '@flotilla/testkit';
import { containerId, deadline, engineId, holder, log, makeVolumeService } from './volume-fixture.js';

const named = (name: string, more: Partial<volume.CreateVolumeRequest> = {}): volume.CreateVolumeRequest => ({
  ...{ name, driver: '', options: {}, labels: {} },
  ...more,
});
const acquisition = (digit: string, name: string, destination = '/data'): volume.AcquireVolumeRequest => ({
  ...{
    holder: holder(digit),
    name,
    driver: '',
    options: {},
    labels: {},
    destination,
    readOnly: false,
    isAnonymous: false,
  },
});
const use = (digit: string, name: string, destination = '/data') => ({
  ...{ containerId: containerId(digit), name, destination, readOnly: false, propagation: '' },
});
const mode = async (path: string) => ((await stat(path)).mode & 0o7777).toString(8);

describe('create, get, list, remove', () => {
  it('makes a volume as dockerd does: directory, owner, modes, creation time', async () => {
    await using service = await makeVolumeService();
    const { client, root, pathOf } = service;
    const { volume: made, revision } = await client.createVolume(named('data', { labels: { a: '1' } }), deadline);
    expect(made).toMatchObject({
      ...{ name: 'data', driver: 'local', scope: 'local', anonymous: false, heldBy: [], labels: { a: '1' } },
      mountpoint: pathOf('data'),
    });
    expect(Math.abs(Number(made?.createdAt?.seconds ?? 0n) - Date.now() / 1000)).toBeLessThan(5);
    expect(revision).toBeGreaterThan(0n);
    expect(await mode(join(root, 'volumes'))).toBe('700');
    expect(await mode(join(root, 'volumes/data'))).toBe('701');
    expect(await mode(pathOf('data'))).toBe('755');
    expect((await client.getVolume({ name: 'data' }, deadline)).volume).toEqual(made);
    expect((await client.listVolumes({}, deadline)).volumes).toEqual([made]);
  });

  it.skipIf(process.getuid?.() !== 0)(
    'lets nobody but root to files, also in a directory that an engine before left open',
    async () => {
      await using service = await makeVolumeService();
      const { client, root, pathOf } = service;
      await client.createVolume(named('data'), deadline);
      const look = (path: string) =>
        execFileSync('stat', [path], { uid: 65_534, gid: 65_534, stdio: 'pipe', cwd: '/' });
      await chmod(root, 0o711);
      look(root);
      expect(() => look(pathOf('data'))).toThrow('Permission denied');
      await service.restart(() => chmod(join(root, 'volumes'), 0o711));
      expect(() => look(pathOf('data'))).toThrow('Permission denied');
    },
  );

  it('returns the volume that exists, and refuses another driver or other options', async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    const options = { type: 'tmpfs', device: 'tmpfs', o: 'size=1m' };
    const { volume: made } = await client.createVolume(named('data', { options }), deadline);
    for (const again of [named('data'), named('data', { driver: 'local', options, labels: { new: 'x' } })]) {
      expect((await client.createVolume(again, deadline)).volume).toEqual(made);
    }
    await expect(client.createVolume(named('data', { driver: 'nfs' }), deadline)).rejects.toMatchObject({
      kind: 'conflict',
      message: "create data: driver 'local' already has volume 'data': volume name must be unique",
    });
    const other = client.createVolume(named('data', { options: { ...options, o: 'size=2m' } }), deadline);
    await expect(other).rejects.toMatchObject({ kind: 'conflict' });
  });

  it('names a volume without a name and marks it anonymous', async () => {
    await using service = await makeVolumeService();
    const { volume: made } = await service.client.createVolume(named(''), deadline);
    expect(made?.name).toMatch(/^[0-9a-f]{64}$/);
    expect(made?.anonymous).toBe(true);
    expect(made?.labels).toEqual({ 'com.docker.volume.anonymous': '' });
  });

  it.each([
    [
      '../escape',
      'invalidArgument',
      'create ../escape: "../escape" includes invalid characters for a local volume name',
    ],
    ['a', 'invalidArgument', 'create a: volume name is too short'],
    ['x'.repeat(256), 'invalidArgument', 'volume name is too long'],
  ])('refuses the name %s', async (name, kind, message) => {
    await using service = await makeVolumeService();
    const refused = service.client.createVolume(named(name), deadline);
    await expect(refused).rejects.toMatchObject({ kind, message: expect.stringContaining(message) as string });
    expect(await readdir(join(service.root, 'volumes'))).toEqual(['.removed']);
    expect((await service.client.listVolumes({}, deadline)).volumes).toEqual([]);
  });

  it("refuses unknown options and drivers in dockerd's words", async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    await expect(client.createVolume(named('data', { options: { x: '1' } }), deadline)).rejects.toMatchObject({
      ...{ kind: 'invalidArgument', message: 'create data: invalid option: "x"' },
    });
    await expect(client.createVolume(named('data', { driver: 'sshfs' }), deadline)).rejects.toMatchObject({
      kind: 'notFound',
      message: 'create data: error looking up volume plugin sshfs: plugin "sshfs" not found',
    });
  });

  it('removes a volume with its files, and says so when there is none', async () => {
    await using service = await makeVolumeService();
    const { client, root, pathOf } = service;
    await client.createVolume(named('data'), deadline);
    await mkdir(join(pathOf('data'), 'deep/er'), { recursive: true });
    await writeFile(join(pathOf('data'), 'deep/er/file'), 'x');
    await symlink('/etc', join(pathOf('data'), 'etc'));
    await client.removeVolume({ name: 'data', force: false }, deadline);
    expect(await readdir(join(root, 'volumes'))).toEqual(['.removed']);
    expect(await readdir(join(root, 'volumes/.removed'))).toEqual([]);
    expect(existsSync('/etc/passwd')).toBe(true);
    const missing = { kind: 'notFound', message: 'get data: no such volume' };
    await expect(client.getVolume({ name: 'data' }, deadline)).rejects.toMatchObject(missing);
    await expect(client.removeVolume({ name: 'data', force: false }, deadline)).rejects.toMatchObject(missing);
    await client.removeVolume({ name: 'data', force: true }, deadline);
  });

  it('keeps what users may not see out of the list', async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    await client.createVolume(named('mine', { labels: { owner: 'ann' } }), deadline);
    await client.createVolume(named('other', { labels: { owner: 'bob' } }), deadline);
    const identity = { name: 'ann', visibility: { owner: 'ann' } };
    const { volumes } = await client.listVolumes({}, { ...deadline, identity });
    expect(volumes.map(({ name }) => name)).toEqual(['mine']);
    const all = { all: true, labels: [], excludedLabels: [] };
    const { removed } = await client.pruneVolumes(all, { ...deadline, identity });
    expect(removed).toEqual(['mine']);
  });

  it('answers a repeated request with the first answer', async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    const again = { ...deadline, requestId: randomUUID() };
    const first = await client.createVolume(named(''), again);
    expect(await client.createVolume(named(''), again)).toEqual(first);
    await service.restart();
    expect(await client.createVolume(named(''), again)).toEqual(first);
    expect((await client.listVolumes({}, deadline)).volumes).toHaveLength(1);
    const removal = { ...deadline, requestId: randomUUID() };
    const name = first.volume?.name ?? '';
    const removed = await client.removeVolume({ name, force: false }, removal);
    expect(await client.removeVolume({ name, force: false }, removal)).toEqual(removed);
  });

  it('takes a hundred callers at once, and many for one name', async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    const results = await Promise.all(
      Array.from({ length: 100 }, (_, at) => client.createVolume(named(`v-${at % 20}`), deadline)),
    );
    expect(results).toHaveLength(100);
    expect((await client.listVolumes({}, deadline)).volumes).toHaveLength(20);
  });
});

describe('holders', () => {
  it('keep a volume from being removed until they are released', async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    const first = await client.acquireVolume(acquisition('a', 'data'), deadline);
    expect(first.created).toBe(true);
    expect((await client.acquireVolume(acquisition('a', 'data', '/other'), deadline)).created).toBe(false);
    await client.acquireVolume(acquisition('b', 'data'), deadline);
    const { volume: held } = await client.getVolume({ name: 'data' }, deadline);
    expect(held?.heldBy).toEqual([holder('a'), holder('b')]);
    await expect(client.removeVolume({ name: 'data', force: true }, deadline)).rejects.toMatchObject({
      kind: 'conflict',
      message: `remove data: volume is in use - [${containerId('a')}, ${containerId('b')}]`,
    });
    for (const digit of ['a', 'b', 'b']) {
      const released = await client.releaseVolumes(
        { containerId: containerId(digit), removeAnonymous: true },
        deadline,
      );
      expect(released.removed).toEqual([]);
    }
    await client.removeVolume({ name: 'data', force: false }, deadline);
  });

  it('get the same anonymous volume for the same destination, and leave none behind', async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    const one = await client.acquireVolume(acquisition('a', '', '/one'), deadline);
    const same = await client.acquireVolume(acquisition('a', '', '/one'), deadline);
    const two = await client.acquireVolume(acquisition('a', '', '/two'), deadline);
    expect(same.volume).toEqual(one.volume);
    expect(two.volume?.name).not.toBe(one.volume?.name);
    await client.acquireVolume(acquisition('a', 'kept'), deadline);
    // Somebody else uses the second by its name.
    await client.acquireVolume(acquisition('b', two.volume?.name ?? ''), deadline);
    const removed = await client.releaseVolumes({ containerId: containerId('a'), removeAnonymous: true }, deadline);
    expect(removed.removed).toEqual([one.volume?.name]);
    const { volumes } = await client.listVolumes({}, deadline);
    expect(volumes.map(({ name }) => name).sort()).toEqual(['kept', two.volume?.name].sort());
    // By its name: it does not go with that container.
    await client.releaseVolumes({ containerId: containerId('b'), removeAnonymous: true }, deadline);
    expect((await client.listVolumes({}, deadline)).volumes).toHaveLength(2);
  });

  it('of dead containers are dropped, living and new ones are not', async () => {
    let now = Date.now();
    await using service = await makeVolumeService({ now: () => now });
    const { client } = service;
    await client.acquireVolume(acquisition('a', 'data'), deadline);
    await client.acquireVolume(acquisition('b', 'data'), deadline);
    const reconcile = () => client.reconcileHolders({ liveContainerIds: [containerId('a')], revision: 7n }, deadline);
    // The claim may be younger than the list of living containers.
    expect((await reconcile()).released).toEqual([]);
    now += 60_000;
    expect((await reconcile()).released).toEqual([containerId('b')]);
    expect((await client.getVolume({ name: 'data' }, deadline)).volume?.heldBy).toEqual([holder('a')]);
  });

  it('survive a restart', async () => {
    await using service = await makeVolumeService();
    await service.client.acquireVolume(acquisition('a', 'data'), deadline);
    await service.restart();
    const { volume: held } = await service.client.getVolume({ name: 'data' }, deadline);
    expect(held?.heldBy).toEqual([holder('a')]);
  });

  it('must say who they are', async () => {
    await using service = await makeVolumeService();
    const anonymous = { ...acquisition('a', 'data'), holder: { containerId: 'x', containerName: '' } };
    await expect(service.client.acquireVolume(anonymous, deadline)).rejects.toMatchObject({ kind: 'invalidArgument' });
  });
});

describe('mounts', () => {
  const own = volume.VolumeContent.UNSPECIFIED;

  it('tell the path and whether image content may be copied in', async () => {
    await using service = await makeVolumeService();
    const { client, pathOf } = service;
    await client.acquireVolume(acquisition('a', 'data'), deadline);
    const mounted = await client.mountVolume(use('a', 'data'), deadline);
    const { copyStaging } = mounted;
    expect(mounted).toEqual({
      path: pathOf('data'),
      fresh: true,
      content: own,
      copyStaging: expect.stringMatching(/^\.flotilla-copy-up-\d{19}$/) as string,
    });
    await writeFile(join(pathOf('data'), 'file'), 'x');
    expect(await client.mountVolume(use('b', 'data'), deadline)).toMatchObject({ path: pathOf('data'), fresh: false });
    // What another volume's copies are put together in is a directory like any other here.
    await client.acquireVolume(acquisition('a', 'other'), deadline);
    await mkdir(join(pathOf('other'), copyStaging));
    expect(await client.mountVolume(use('a', 'other'), deadline)).toMatchObject({ fresh: false });
    // A copy of image content was cut.
    await mkdir(join(pathOf('data'), copyStaging));
    expect(await client.mountVolume(use('b', 'data'), deadline)).toMatchObject({ fresh: true });
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
    const missing = client.mountVolume(use('a', 'nothing'), deadline);
    await expect(missing).rejects.toMatchObject({ kind: 'notFound', message: 'get nothing: no such volume' });
  });

  it('keep the mode that a container gave its directory', async () => {
    await using service = await makeVolumeService();
    const { client, pathOf } = service;
    await client.acquireVolume(acquisition('a', 'data'), deadline);
    await chmod(pathOf('data'), 0o1777);
    await client.mountVolume(use('a', 'data'), deadline);
    expect(await mode(pathOf('data'))).toBe('1777');
  });

  const isRoot = process.getuid?.() === 0;

  it.skipIf(!isRoot)('of many volumes at once wait for their turn (needs root)', async () => {
    await using service = await makeVolumeService({ kernelLimits: { answerMs: 60_000, measureMs: 5_000, atOnce: 8 } });
    const { client, pathOf } = service;
    const names = Array.from({ length: 40 }, (_, at) => `tmpfs${at}`);
    const options = { type: 'tmpfs', device: 'tmpfs' };
    await Promise.all(names.map((name) => client.createVolume(named(name, { options }), deadline)));
    await Promise.all(names.map((name) => client.mountVolume(use('a', name), deadline)));
    expect(names.filter((name) => !isMountPoint(pathOf(name)))).toEqual([]);
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
  });

  it.skipIf(!isRoot)(
    'of a tmpfs last from the first container to the last, also over a restart (needs root)',
    async () => {
      await using service = await makeVolumeService();
      const { client, pathOf } = service;
      const options = { type: 'tmpfs', device: 'tmpfs', o: 'size=1m,nodev' };
      await client.createVolume(named('data', { options }), deadline);
      for (const digit of ['a', 'b']) {
        await client.acquireVolume(acquisition(digit, 'data'), deadline);
        const { path, content } = await client.mountVolume(use(digit, 'data'), deadline);
        expect([path, content]).toEqual([pathOf('data'), volume.VolumeContent.FILE_SYSTEM]);
        await client.mountVolume(use(digit, 'data'), deadline);
      }
      await writeFile(join(pathOf('data'), 'file'), 'x');
      await service.restart();
      await client.unmountVolumes({ containerId: containerId('a') }, deadline);
      expect(await readdir(pathOf('data'))).toEqual(['file']);
      expect((await client.getVolumeUsage({}, deadline)).volumes).toEqual([
        { name: 'data', sizeBytes: -1n, referenceCount: 2n },
      ]);
      await client.releaseVolumes({ containerId: containerId('b'), removeAnonymous: false }, deadline);
      expect(await readdir(pathOf('data'))).toEqual([]);
    },
  );

  it.skipIf(!isRoot)(
    'of a bound directory are read-only when asked, and removal leaves it alone (needs root)',
    async () => {
      await using service = await makeVolumeService();
      const { client, root, pathOf } = service;
      const source = join(root, 'source');
      await mkdir(source);
      await writeFile(join(source, 'precious'), 'x');
      const options = { type: 'none', device: source, o: 'bind,ro' };
      await client.createVolume(named('data', { options }), deadline);
      await client.acquireVolume(acquisition('a', 'data'), deadline);
      const { fresh, content } = await client.mountVolume(use('a', 'data'), deadline);
      expect([fresh, content]).toEqual([false, volume.VolumeContent.BIND]);
      await expect(writeFile(join(pathOf('data'), 'new'), 'x')).rejects.toThrow('EROFS');
      await client.releaseVolumes({ containerId: containerId('a'), removeAnonymous: false }, deadline);
      await client.removeVolume({ name: 'data', force: false }, deadline);
      expect(await readdir(source)).toEqual(['precious']);
    },
  );

  it.skipIf(!isRoot)('that the kernel refuses leave nothing behind (needs root)', async () => {
    await using service = await makeVolumeService();
    const { client, root, pathOf } = service;
    const options = { type: 'none', device: join(root, 'missing'), o: 'bind' };
    await client.createVolume(named('data', { options }), deadline);
    await client.acquireVolume(acquisition('a', 'data'), deadline);
    await expect(client.mountVolume(use('a', 'data'), deadline)).rejects.toMatchObject({
      kind: 'internal',
      message:
        `error while mounting volume '${pathOf('data')}': failed to mount local volume: ` +
        `mount ${join(root, 'missing')}:${pathOf('data')}, flags: 0x1000: no such file or directory`,
    });
    await mkdir(join(root, 'missing'));
    expect((await client.mountVolume(use('a', 'data'), deadline)).fresh).toBe(true);
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
  });
});

describe('prune and usage', () => {
  it('count files once and remove what nobody holds', async () => {
    await using service = await makeVolumeService();
    const { client, pathOf } = service;
    const { volume: anonymous } = await client.createVolume(named(''), deadline);
    await client.createVolume(named('data', { labels: { keep: '' } }), deadline);
    await client.createVolume(named('loose'), deadline);
    await client.acquireVolume(acquisition('a', 'held'), deadline);
    await mkdir(join(pathOf('loose'), 'sub'));
    await writeFile(join(pathOf('loose'), 'sub/a'), Buffer.alloc(1000));
    await link(join(pathOf('loose'), 'sub/a'), join(pathOf('loose'), 'b'));
    const usage = await client.getVolumeUsage({}, deadline);
    expect(new Map(usage.volumes.map((one) => [one.name, [one.sizeBytes, one.referenceCount]]))).toEqual(
      new Map([
        [anonymous?.name, [0n, 0n]],
        ['data', [0n, 0n]],
        ['loose', [1000n, 0n]],
        ['held', [0n, 1n]],
      ]),
    );
    const prune = (more: Partial<volume.PruneVolumesRequest>) =>
      client.pruneVolumes({ all: false, labels: [], excludedLabels: [], ...more }, deadline);
    expect((await prune({})).removed).toEqual([anonymous?.name]);
    expect(await prune({ all: true, excludedLabels: ['keep'] })).toMatchObject({
      removed: ['loose'],
      reclaimedBytes: 1000n,
    });
    expect((await prune({ all: true, labels: ['keep=no'] })).removed).toEqual([]);
    expect((await prune({ all: true, labels: ['keep'] })).removed).toEqual(['data']);
    expect((await client.listVolumes({}, deadline)).volumes.map(({ name }) => name)).toEqual(['held']);
  });
});

describe('watch', () => {
  it('tells the snapshot, then every change with its revision', async () => {
    await using service = await makeVolumeService();
    const { client } = service;
    await client.createVolume(named('before'), deadline);
    const seen: volume.WatchVolumesResponse[] = [];
    const stop = new AbortController();
    const watching = (async () => {
      for await (const message of client.watchVolumes({}, { signal: stop.signal })) seen.push(message);
    })();
    await waitFor(() => seen.some(({ change }) => change?.$case === 'synced'), { what: 'the snapshot' });
    const { revision: created } = await client.createVolume(named('data'), deadline);
    const { revision: acquired } = await client.acquireVolume(acquisition('a', 'data'), deadline);
    await client.releaseVolumes({ containerId: containerId('a'), removeAnonymous: true }, deadline);
    const { revision: removed } = await client.removeVolume({ name: 'data', force: false }, deadline);
    await waitFor(() => seen.at(-1)?.revision === removed, { what: 'the removal' });
    const told = seen.map(({ revision, change }) => [
      revision,
      change?.$case,
      change?.$case === 'upsert' ? change.value.name : change?.$case === 'removed' ? change.value : '',
    ]);
    expect(told.slice(0, 2).map(([, ...rest]) => rest)).toEqual([
      ['upsert', 'before'],
      ['synced', ''],
    ]);
    expect(told.slice(2, 4)).toEqual([
      [created, 'upsert', 'data'],
      [acquired, 'upsert', 'data'],
    ]);
    expect(told.at(-1)).toEqual([removed, 'removed', 'data']);
    stop.abort();
    await expect(watching).rejects.toMatchObject({ kind: 'cancelled' });
  });
});

describe('events', () => {
  it('tell of create, mount, unmount and destroy once each, also across a restart', async () => {
    await using nats = await startNats();
    await ensureStream(nats);
    const address = { url: nats.url, user: nats.user, pass: nats.pass };
    await using service = await makeVolumeService({}, address);
    const { client } = service;
    await using reader = new EventReader(address, log, { engineId });
    await waitFor(() => reader.isConnected, { what: 'the reader to connect' });
    const seen: events.Event[] = [];
    const stop = new AbortController();
    const stream = await reader.read({ signal: stop.signal });
    const reading = (async () => {
      for await (const event of stream) seen.push(event);
    })();
    await client.acquireVolume(acquisition('a', 'data'), deadline);
    await client.mountVolume({ ...use('a', 'data', '/d'), readOnly: true }, deadline);
    await client.mountVolume({ ...use('a', 'data', '/d'), readOnly: true }, deadline);
    await service.restart();
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
    await client.releaseVolumes({ containerId: containerId('a'), removeAnonymous: true }, deadline);
    await client.removeVolume({ name: 'data', force: false }, { ...deadline, requestId: 'request-9' });
    await waitFor(() => seen.length >= 4, { what: 'four events' });
    expect(seen.map(({ action, actorId, attributes }) => [action, actorId, attributes])).toEqual([
      ['create', 'data', { driver: 'local' }],
      [
        'mount',
        'data',
        { driver: 'local', container: containerId('a'), destination: '/d', propagation: '', 'read/write': 'false' },
      ],
      ['unmount', 'data', { driver: 'local', container: containerId('a') }],
      ['destroy', 'data', { driver: 'local' }],
    ]);
    expect(seen[3]?.requestId).toBe('request-9');
    stop.abort();
    await reading;
  });
});
