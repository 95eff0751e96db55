import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { startContainerService } from '@flotilla/container';
import { container, volume } from '@flotilla/proto';
import { getXattr, mount, setXattr, umountAll } from '@flotilla/sys';
import { plainTar } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { archiveClient, listTar } from './archive-client.js';
import {
  canRun,
  createRequest,
  deadline,
  log,
  makeContainerService,
  makeEngineRoot,
  readLog,
  waitFor,
} from './container-fixture.js';

const rangesFrom = (hostId: number) => [{ containerId: 0, hostId, size: 65536 }];
const first = { uids: rangesFrom(200_000), gids: rangesFrom(300_000) };
const second = { uids: rangesFrom(500_000), gids: rangesFrom(600_000) };

describe.skipIf(!canRun)('containers in user namespaces (needs root, shim, runc, busybox)', () => {
  let service: Awaited<ReturnType<typeof makeContainerService>>;
  let cp: ReturnType<typeof archiveClient>;
  beforeAll(async () => {
    service = await makeContainerService(null, { userNamespace: first });
    cp = archiveClient(service.client);
    service.peers.images.add('owned', {}, (layer) => {
      mkdirSync(join(layer, 'data'));
      for (const [name, id] of [
        ['root', 0],
        ['web', 1000],
        ['beyond', 70_000],
      ] as const) {
        writeFileSync(join(layer, 'data', name), name);
        chownSync(join(layer, 'data', name), id, id);
      }
    });
  });
  afterAll(() => service[Symbol.asyncDispose]());

  const create = async (name: string, cmd: string[], fields: Parameters<typeof createRequest>[1] = {}) =>
    (await service.client.createContainer(createRequest(cmd, { name, image: 'owned', ...fields }), deadline)).id;
  const start = (name: string) => service.client.startContainer({ name, checkpoint: '', checkpointDir: '' }, deadline);
  const remove = (name: string) =>
    service.client.removeContainer({ name, force: true, volumes: true, link: false }, deadline);
  const pidOf = async (name: string) =>
    (await service.client.getContainer({ name, size: false }, deadline)).container?.state?.pid;
  const upper = (id: string) => join(service.peers.images.root, 'containers', id, 'diff');
  const owner = (path: string) => {
    const { uid, gid } = lstatSync(path);
    return `${uid}:${gid}`;
  };
  const noneLeft = () => expect.poll(() => service.leftovers(), { timeout: 20_000 }).toEqual([]);
  /** Run a shell script in a container to its end, and give what it wrote. */
  const output = async (script: string, fields: Parameters<typeof createRequest>[1] = {}) => {
    await create('script', ['sh', '-c', script], fields);
    await start('script');
    await waitFor(service.client, 'script');
    const text = await readLog(service.client, 'script');
    await remove('script');
    return text.trim().split('\n');
  };
  const namespaceOf = async (name: string, kind: string) => readlinkSync(`/proc/${await pidOf(name)}/ns/${kind}`);

  it('are root inside and nobody outside; what they write is stored for 0', async () => {
    const id = await create('plain', [
      ...['sh', '-c'],
      'id -u; stat -c %u:%g / /data/* /etc/hosts; echo more >> /data/web; echo x > /new; echo ok >> /etc/hosts; exec sleep 1000',
    ]);
    await start('plain');
    await expect
      .poll(() => readLog(service.client, 'plain'), { timeout: 20_000 })
      .toBe('0\n0:0\n65534:65534\n0:0\n1000:1000\n0:0\n');
    const status = readFileSync(`/proc/${await pidOf('plain')}/status`, 'utf8');
    expect(/^Uid:.*$/m.exec(status)?.[0]).toBe('Uid:\t200000\t200000\t200000\t200000');
    expect(/^Gid:.*$/m.exec(status)?.[0]).toBe('Gid:\t300000\t300000\t300000\t300000');
    await expect.poll(() => owner(join(upper(id), 'new')), { timeout: 20_000 }).toBe('0:0');
    expect(owner(join(upper(id), 'data/web'))).toBe('1000:1000');
    await remove('plain');
    await noneLeft();
  });

  it('have what a container has: its domain, message queues, a writable /dev/shm, sockets for ping', async () => {
    const config = { hostname: 'inside', domainName: 'example' };
    const script =
      'hostname; cat /proc/sys/kernel/domainname; stat -c %u /dev/shm; grep -c mqueue /proc/mounts; cat /proc/sys/net/ipv4/ping_group_range; echo > /sys/fs/cgroup/pids/cgroup.procs || echo shut';
    const lines = await output(script, { config });
    expect(lines.filter((line) => !line.startsWith('sh:'))).toEqual([
      'inside',
      'example',
      '0',
      '1',
      '0\t65535',
      'shut',
    ]);
  });

  it('take and give archives by their own ids, running or not', async () => {
    await create('copied', ['sleep', '1000']);
    const owned = (name: string, id: number) => ({ name, uid: id, gid: id, data: Buffer.from('x') });
    for (const state of ['stopped', 'running']) {
      if (state === 'running') await start('copied');
      expect(listTar((await cp.read('copied', '/data')).tar)).toEqual([
        'drwxr-xr-x 0/0 0 data/',
        '-rw-r--r-- 65534/65534 6 data/beyond',
        '-rw-r--r-- 0/0 4 data/root',
        '-rw-r--r-- 1000/1000 3 data/web',
      ]);
      await cp.write('copied', '/', plainTar([owned(`of-root-${state}`, 0), owned(`of-web-${state}`, 1000)]));
      await expect(cp.write('copied', '/', plainTar([owned('stranger', 65_536)]))).rejects.toThrow(
        'Container ID 65536 cannot be mapped to a host ID',
      );
      const id = (await service.client.getContainer({ name: 'copied', size: false }, deadline)).container?.id ?? '';
      expect(owner(join(upper(id), `of-root-${state}`))).toBe('0:0');
      expect(owner(join(upper(id), `of-web-${state}`))).toBe('1000:1000');
      expect(listTar((await cp.read('copied', '/proc')).tar)).toHaveLength(1);
      expect(listTar((await cp.read('copied', '/dev')).tar)).toHaveLength(1);
    }
    expect(listTar((await cp.read('copied', '/etc/hosts')).tar)[0]).toMatch(/ 0\/0 /);
    await remove('copied');
    await noneLeft();
  });

  it('keep the capabilities of files, for their own root', async () => {
    const value = Buffer.from(`01000002${'0010000000000000'.repeat(2)}`, 'hex');
    service.peers.images.add('capable', {}, (layer) => {
      mkdirSync(join(layer, 'data'));
      copyFileSync('/bin/busybox', join(layer, 'data/busybox'));
      setXattr(join(layer, 'data/busybox'), 'security.capability', value);
    });
    await create('giver', ['sleep', '1000'], { image: 'capable' });
    await start('giver');
    const { tar } = await cp.read('giver', '/data');
    expect(tar.includes(Buffer.concat([Buffer.from('security.capability='), value, Buffer.from('\n')]))).toBe(true);
    const cmd = ['/home/data/busybox', 'grep', 'CapEff', '/proc/self/status'];
    const id = await create('taker', cmd, { config: { user: '1000' }, hostConfig: { capAdd: ['NET_ADMIN'] } });
    await cp.write('taker', '/home', tar);
    await cp.write('giver', '/home', tar);
    const giver = (await service.client.getContainer({ name: 'giver', size: false }, deadline)).container?.id ?? '';
    for (const one of [id, giver]) {
      expect(getXattr(join(upper(one), 'home/data/busybox'), 'security.capability')?.equals(value)).toBe(true);
    }
    await start('taker');
    await waitFor(service.client, 'taker');
    expect(await readLog(service.client, 'taker')).toBe('CapEff:\t0000000000001000\n');
    for (const name of ['giver', 'taker']) await remove(name);
  });

  it('share volumes with containers of the host, and own none of a bind mount', async () => {
    const bind = join(service.root, 'bind');
    mkdirSync(bind);
    const binds = ['shared:/data', `${bind}:/bind`];
    const script = 'stat -c %u /data/web /bind; echo x > /data/written; touch /bind/x 2>/dev/null || echo refused';
    expect(await output(script, { hostConfig: { binds } })).toEqual(['1000', '65534', 'refused']);
    const shared = service.peers.volumes.pathOf('shared');
    expect([owner(join(shared, 'web')), owner(join(shared, 'written'))]).toEqual(['1000:1000', '0:0']);
    const hostConfig = { binds, usernsMode: 'host' };
    expect(await output('stat -c %u /data/* /bind', { hostConfig })).toEqual([...['65534', '0', '1000', '0'], '0']);
    await noneLeft();
  });

  it('own none of a volume that binds a directory of the machine, and the root of a new file system of a volume', async () => {
    const { volumes } = service.peers;
    volumes.contents.set('bound', volume.VolumeContent.BIND);
    volumes.contents.set('mounted', volume.VolumeContent.FILE_SYSTEM);
    const hostConfig = { binds: ['bound:/b', 'mounted:/m'] };
    const script = 'for d in /b /m; do stat -c %u $d; touch $d/x 2>/dev/null || echo refused; done';
    expect(await output(script, { hostConfig })).toEqual(['65534', 'refused', '0']);
    const [bound, mounted] = [volumes.pathOf('bound'), volumes.pathOf('mounted')];
    expect([owner(bound), owner(mounted), owner(join(mounted, 'x'))]).toEqual([
      '0:0',
      ...Array<string>(2).fill('200000:300000'),
    ]);
    // What the image has there is copied as the container's, as dockerd does.
    expect(
      await output('stat -c %u /data/web; touch /data/x; stat -c %u /data/x', {
        hostConfig: { binds: ['bound:/data'] },
      }),
    ).toEqual(['1000', '0']);
    expect([owner(join(bound, 'web')), owner(join(bound, 'x'))]).toEqual(['201000:301000', '200000:300000']);
    await noneLeft();
  });

  it('show volumes by their own ids to copies of a stopped container', async () => {
    const mounts = [
      container.MountRequest.fromPartial({ type: 'volume', source: 'sub', target: '/whole' }),
      container.MountRequest.fromPartial({
        ...{ type: 'volume', source: 'sub', target: '/part' },
        volumeOptions: { subpath: 'a' },
      }),
    ];
    mkdirSync(join(service.peers.volumes.pathOf('sub'), 'a'), { recursive: true });
    await create('volumes', ['sleep', '1000'], { hostConfig: { mounts } });
    await cp.write('volumes', '/part', plainTar([{ name: 'new', uid: 7, gid: 8, data: Buffer.from('x') }]));
    expect(listTar((await cp.read('volumes', '/whole/a')).tar)).toContain('-rw-r--r-- 7/8 1 a/new');
    expect(owner(join(service.peers.volumes.pathOf('sub'), 'a/new'))).toBe('7:8');
    await noneLeft();
    await remove('volumes');
  });

  it('share the user namespace with whom they share another, and refuse what is not of theirs', async () => {
    await create('donor', ['sleep', '1000'], { hostConfig: { ipcMode: 'shareable' } });
    await create('host-donor', ['sleep', '1000'], { hostConfig: { usernsMode: 'host' } });
    for (const name of ['donor', 'host-donor']) await start(name);
    for (const hostConfig of [
      { networkMode: 'container:donor' },
      { ipcMode: 'container:donor' },
      { pidMode: 'container:donor', networkMode: 'container:donor' },
    ]) {
      await create('sharer', ['sleep', '1000'], { hostConfig });
      await start('sharer');
      expect(await namespaceOf('sharer', 'user')).toBe(await namespaceOf('donor', 'user'));
      const shares = hostConfig.networkMode !== undefined;
      expect((await namespaceOf('sharer', 'net')) === (await namespaceOf('donor', 'net'))).toBe(shares);
      await remove('sharer');
    }
    await create('stranger', ['sleep', '1000'], { hostConfig: { networkMode: 'container:host-donor' } });
    await expect(start('stranger')).rejects.toThrow('it runs in another user namespace');
    for (const name of ['stranger', 'donor', 'host-donor']) await remove(name);
    await noneLeft();
  });

  it('cannot be written down', async () => {
    await create('running', ['sleep', '1000']);
    await start('running');
    const request = { name: 'running', checkpoint: 'one', directory: '', exit: false };
    await expect(service.client.createCheckpoint(request, deadline)).rejects.toThrow(
      'checkpoints of containers in a user namespace are not supported',
    );
    await remove('running');
  });

  it.each([
    [{ privileged: true }, 'privileged mode is incompatible with user namespaces'],
    [{ networkMode: 'host' }, "cannot share the host's network namespace"],
    [{ pidMode: 'host' }, 'cannot share the host PID namespace'],
  ])('refuse %j at create', async (hostConfig, message) => {
    await expect(create('refused', ['true'], { hostConfig })).rejects.toThrow(message);
    await create('allowed', ['true'], { hostConfig: { ...hostConfig, usernsMode: 'host' } });
    await remove('allowed');
  });

  it('keep their ids when the setting changes', async () => {
    const old = await create('old', ['sh', '-c', 'cat /proc/self/uid_map; echo x >> /log; exec sleep 1000']);
    service.config.container.userNamespace = second;
    await service.restart();
    await create('new', ['sleep', '1000']);
    service.config.container.userNamespace = undefined;
    await service.restart();
    await create('none', ['sleep', '1000']);
    // As an engine that remaps nothing leaves it.
    chmodSync(service.config.execRoot, 0o700);
    for (const name of ['old', 'new', 'none']) await start(name);
    const bundleOf = async (name: string) => {
      const { container: shown } = await service.client.getContainer({ name, size: false }, deadline);
      const { mode, gid } = statSync(join(service.bundles, shown?.id ?? ''));
      return [mode & 0o777, gid];
    };
    expect([await bundleOf('old'), await bundleOf('none')]).toEqual([
      [0o710, 300_000],
      [0o700, 0],
    ]);
    const rootOf = async (name: string) => statSync(`/proc/${await pidOf(name)}`).uid;
    expect([await rootOf('old'), await rootOf('new'), await rootOf('none')]).toEqual([200_000, 500_000, 0]);
    await expect.poll(() => owner(join(upper(old), 'log')), { timeout: 20_000 }).toBe('0:0');
    for (const name of ['old', 'new', 'none']) await remove(name);
    service.config.container.userNamespace = first;
    await service.restart();
    await noneLeft();
  });
});

describe.skipIf(!canRun)('a container service that is to remap ids', () => {
  it('says that the file system of its data root cannot', async () => {
    const engine = await makeEngineRoot();
    const { dataDir } = engine.config;
    mkdirSync(dataDir, { recursive: true });
    mount('ramfs', dataDir, 'ramfs');
    try {
      Object.assign(engine.config.container, { userNamespace: first });
      await expect(startContainerService(engine.config, { log })).rejects.toThrow(
        `the file system of ${dataDir} cannot show files with mapped ids: mount on`,
      );
      expect(existsSync(join(dataDir, 'id-map-probe'))).toBe(false);
    } finally {
      umountAll(dataDir);
      await engine[Symbol.asyncDispose]();
    }
  });

  it('starts where one before was killed while it tried', async () => {
    const engine = await makeEngineRoot();
    const probe = join(engine.config.dataDir, 'id-map-probe');
    mkdirSync(join(probe, 'target'), { recursive: true });
    for (const part of ['lower', 'upper']) mkdirSync(join(probe, part));
    mount('tmpfs', join(probe, 'target'), 'tmpfs');
    try {
      Object.assign(engine.config.container, { userNamespace: first });
      await using _service = await startContainerService(engine.config, { log });
      expect(existsSync(probe)).toBe(false);
    } finally {
      umountAll(join(probe, 'target'));
      await engine[Symbol.asyncDispose]();
    }
  });

  it('says at its start what stands in the way', async () => {
    await expect(
      makeContainerService(null, { userNamespace: { uids: rangesFrom(0), gids: [] } }).then((service) =>
        service[Symbol.asyncDispose](),
      ),
    ).rejects.toThrow('userns-remap cannot work here: the mapping of ids has no root');
  });
});
