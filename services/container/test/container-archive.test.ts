import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { container } from '@flotilla/proto';
import { getXattr, readMounts, setXattr } from '@flotilla/sys';
import { plainTar, waitFor as waitUntil } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { archiveClient, listTar, openBody } from './archive-client.js';
import { canRun, createRequest, deadline, makeContainerService, waitFor } from './container-fixture.js';

const directory = 0x8000_0000;
const symlink = 0x0800_0000;
const file = (name: string, text: string) => [name, Buffer.from(text)] as [string, Buffer];

describe.skipIf(!canRun)('archives of containers (needs root, shim, runc, busybox)', () => {
  let service: Awaited<ReturnType<typeof makeContainerService>>;
  let cp: ReturnType<typeof archiveClient>;
  beforeAll(async () => {
    service = await makeContainerService();
    cp = archiveClient(service.client);
    service.peers.images.add('tree', {}, (layer) => {
      mkdirSync(join(layer, 'data/sub'), { recursive: true });
      writeFileSync(join(layer, 'data/file'), 'from the image');
      writeFileSync(join(layer, 'data/sub/deep'), 'deep');
      symlinkSync('/data', join(layer, 'alias'));
      symlinkSync('alias/sub', join(layer, 'twice'));
      symlinkSync('../../../../../../outside', join(layer, 'dangling'));
      symlinkSync('loop', join(layer, 'loop'));
    });
  });
  afterAll(() => service[Symbol.asyncDispose]());

  const create = async (name: string, fields: Parameters<typeof createRequest>[1] = {}, cmd = ['sleep', '1000']) => {
    const request = createRequest(cmd, { name, image: 'tree', ...fields });
    return (await service.client.createContainer(request, deadline)).id;
  };
  const start = (name: string) =>
    service.client.startContainer({ name, checkpoint: '', checkpointDir: '' }, { ...deadline, requestId: `s-${name}` });
  const remove = (name: string) =>
    service.client.removeContainer({ name, force: true, volumes: true, link: false }, deadline);
  const upper = (id: string) => join(service.peers.images.root, 'containers', id, 'diff');
  /** A shim takes its time to go. */
  const noneLeft = () => expect.poll(() => service.leftovers(), { timeout: 20_000 }).toEqual([]);
  const mount = (fields: Partial<container.MountRequest>) => container.MountRequest.fromPartial(fields);
  /** Each test for a container that has never run and for one that runs. */
  const each = ['stopped', 'running'] as const;
  const make = async (state: (typeof each)[number], name: string, fields: Parameters<typeof create>[1] = {}) => {
    const id = await create(name, fields);
    if (state === 'running') await start(name);
    return id;
  };

  it.each(each)('tells what a path is, of a container that is %s', async (state) => {
    await make(state, 'stat');
    expect(await cp.stat('stat', '/data/file')).toMatchObject({ name: 'file', sizeBytes: 14n, mode: 0o644 });
    expect(await cp.stat('stat', 'data/')).toMatchObject({ name: 'data', mode: directory + 0o755, linkTarget: '' });
    expect(await cp.stat('stat', '/alias')).toMatchObject({
      name: 'alias',
      mode: symlink + 0o777,
      linkTarget: '/data',
    });
    expect(await cp.stat('stat', '/alias/')).toMatchObject({ name: 'alias', mode: directory + 0o755 });
    expect(await cp.stat('stat', '/twice/.')).toMatchObject({ name: '.', mode: directory + 0o755 });
    expect(await cp.stat('stat', '/twice')).toMatchObject({ linkTarget: '/data/sub' });
    expect(await cp.stat('stat', '/dangling')).toMatchObject({ mode: symlink + 0o777, linkTarget: '/outside' });
    expect(await cp.stat('stat', '/')).toMatchObject({ name: '/', mode: directory + 0o755 });
    expect(await cp.stat('stat', '/../../data/./sub/..')).toMatchObject({ name: 'data' });
    const missing = (path: string) => `Could not find the file ${path} in container stat`;
    for (const path of ['/none', 'none/x', '/dangling/x', '/dangling/']) {
      await expect(cp.stat('stat', path)).rejects.toMatchObject({ kind: 'notFound', message: missing(path) });
    }
    for (const path of ['/data/file/', '/data/file/.', '/data/file/x', '/loop/x']) {
      await expect(cp.stat('stat', path)).rejects.toMatchObject({ kind: 'invalidArgument' });
    }
    await expect(cp.stat('nobody', '/')).rejects.toThrow('No such container: nobody');
    await remove('stat');
    await noneLeft();
  });

  it.each(each)('names what it reads as dockerd does, of a container that is %s', async (state) => {
    await make(state, 'names');
    const names = async (path: string) => listTar((await cp.read('names', path)).tar).map((line) => line.split(' ')[3]);
    expect(await names('/data')).toEqual(['data/', 'data/file', 'data/sub/', 'data/sub/deep']);
    expect(await names('/alias/')).toEqual(['alias/', 'alias/file', 'alias/sub/', 'alias/sub/deep']);
    expect(await names('/alias/.')).toEqual(['./', './file', './sub/', './sub/deep']);
    expect(listTar((await cp.read('names', '/alias')).tar)).toEqual(['lrwxrwxrwx 0/0 0 alias -> /data']);
    const all = await names('/');
    expect(all.slice(0, 2)).toEqual(['/', '/.dockerenv']);
    expect(all).toContain('/data/sub/deep');
    // The kernel's file systems and devices are not the container's.
    expect(all.filter((name) => /^\/(proc|sys|dev)\/./.test(name ?? ''))).toEqual([]);
    await expect(cp.read('names', '/none')).rejects.toMatchObject({ kind: 'notFound' });
    await remove('names');
  });

  it.each(each)('reads and writes through volumes and bind mounts, of a container that is %s', async (state) => {
    const host = join(service.root, `host-${state}`);
    mkdirSync(host);
    writeFileSync(join(host, 'here'), 'host');
    await make(state, 'mounts', {
      hostConfig: {
        binds: [`vol-${state}:/data`, `${host}:/made/for/it`, `${host}:/ro:ro`],
        mounts: [mount({ type: 'tmpfs', target: '/tmpfs' })],
      },
    });
    // The volume has got what the image has there, as a first start would have done.
    expect((await cp.read('mounts', '/data/file')).tar.includes('from the image')).toBe(true);
    expect((await cp.read('mounts', '/made/for/it/here')).tar.includes('host')).toBe(true);
    await cp.write('mounts', '/made/for/it', plainTar([file('new', 'into the bind')]));
    await cp.write('mounts', '/alias/sub', plainTar([file('new', 'into the volume')]));
    expect(readFileSync(join(host, 'new'), 'utf8')).toBe('into the bind');
    expect(readFileSync(join(service.peers.volumes.pathOf(`vol-${state}`), 'sub/new'), 'utf8')).toBe('into the volume');
    await expect(cp.write('mounts', '/ro', plainTar([file('x', '')]))).rejects.toMatchObject({
      kind: 'permissionDenied',
      message: 'mounted volume is marked read-only',
    });
    if (state === 'running') {
      await cp.write('mounts', '/tmpfs', plainTar([file('x', 'in memory')]));
      expect((await cp.read('mounts', '/tmpfs/x')).tar.includes('in memory')).toBe(true);
    }
    expect(service.peers.volumes.mounted.size).toBe(state === 'running' ? 1 : 0);
    await remove('mounts');
    await noneLeft();
  });

  it.each(each)('refuses a read-only root file system that is %s, but not its volumes', async (state) => {
    await make(state, 'readonly', { hostConfig: { readonlyRootfs: true, binds: ['rw:/vol'] } });
    await expect(cp.write('readonly', '/data', plainTar([file('x', '')]))).rejects.toMatchObject({
      kind: 'permissionDenied',
      message: 'container rootfs is marked read-only',
    });
    const through = plainTar([{ name: 'up', type: '2', linkname: '/data' }, file('up/x', '')]);
    await expect(cp.write('readonly', '/vol', through)).rejects.toThrow('read-only file system');
    await cp.write('readonly', '/vol', plainTar([file('x', '')]));
    expect((await cp.stat('readonly', '/vol/x')).name).toBe('x');
    await remove('readonly');
  });

  it.each(each)('lets no archive out of a container that is %s', async (state) => {
    const id = await make(state, 'hostile');
    const root = state === 'running' ? join(service.bundles, id, 'rootfs') : upper(id);
    const secret = join(service.root, 'secret');
    mkdirSync(secret, { recursive: true });
    for (const name of ['../evil', 'a/../../evil', '/../evil']) {
      await expect(cp.write('hostile', '/data', plainTar([file(name, 'x')]))).rejects.toMatchObject({
        kind: 'invalidArgument',
        message: `"${name}" is outside of "/data"`,
      });
    }
    const link = { name: 'hard', type: '1', linkname: '../etc/passwd' };
    await expect(cp.write('hostile', '/data', plainTar([link]))).rejects.toThrow('invalid hardlink');
    await expect(cp.write('hostile', '/data', plainTar([file('.', 'x')]))).rejects.toThrow('cannot take the place of');
    // An absolute name counts from the directory; links are followed in the container's root.
    await cp.write('hostile', '/data', plainTar([file('/abs', 'a'), { name: 'out', type: '2', linkname: secret }]));
    await cp.write('hostile', '/data', plainTar([file('out/through', 'b')]), { noOverwriteDirNonDir: false });
    expect(readFileSync(join(root, 'data/abs'), 'utf8')).toBe('a');
    expect(readFileSync(join(root, secret, 'through'), 'utf8')).toBe('b');
    expect(readdirSync(secret)).toEqual([]);
    expect(existsSync(join(root, 'evil'))).toBe(false);
    await remove('hostile');
  });

  it('keeps owners, modes, times, attributes, links and devices both ways', async () => {
    const id = await create('meta');
    const from = join(service.root, 'from');
    mkdirSync(join(from, 'd'), { recursive: true });
    execFileSync('sh', [
      '-ec',
      [
        `cd ${from}/d`,
        'echo suid >suid; chown 3000000:4000000 suid; chmod 4755 suid',
        'ln suid hard; ln -s nowhere soft; mkfifo fifo; mknod null c 1 3',
        'truncate -s 5M sparse; printf x | dd of=sparse bs=1 seek=3000000 conv=notrunc 2>/dev/null',
        `touch "$(printf 'caf\\351')"; touch -d 2001-02-03T04:05:06Z .`,
      ].join('\n'),
    ]);
    const attributes = [
      ['user.note', Buffer.from('text\xff', 'latin1')],
      ['security.capability', Buffer.from('0100000200040000000000000000000000000000', 'hex')],
    ] as const;
    for (const [name, value] of attributes) setXattr(join(from, 'd/suid'), name, value);
    const xattrs = ['--xattrs', '--xattrs-include=*'];
    const tar = execFileSync('tar', ['--format=posix', '-S', ...xattrs, '--numeric-owner', '-C', from, '-c', 'd'], {
      maxBuffer: 1 << 26,
    });
    await cp.write('meta', '/data', tar);
    const put = join(upper(id), 'data/d');
    expect(statSync(join(put, 'sparse'))).toMatchObject({ size: 5 << 20 });
    expect(statSync(join(put, 'sparse')).blocks).toBeLessThan(100);
    expect(statSync(join(put, 'hard')).ino).toBe(statSync(join(put, 'suid')).ino);
    expect(statSync(put).mtimeMs).toBe(Date.parse('2001-02-03T04:05:06Z'));
    const { tar: back } = await cp.read('meta', '/data/d');
    const to = join(service.root, 'to');
    mkdirSync(to);
    execFileSync('tar', [...xattrs, '--numeric-owner', '-C', to, '-xp'], { input: back });
    const describe = (path: string) =>
      execFileSync(
        'sh',
        [
          '-ec',
          'cd "$0" && find d -printf "%p %M %U:%G %s %l %n %T@\\n" | sed -E "/^d\\/sparse/!s/\\.[0-9]+$//" | sort',
          path,
        ],
        { encoding: 'latin1' },
      );
    const times = (text: string) => text.replaceAll(/\.\d+$/gm, '');
    expect(times(describe(to))).toBe(times(describe(from)));
    for (const [name, value] of attributes) expect(getXattr(join(to, 'd/hard'), name)).toEqual(value);
    await remove('meta');
  });

  it('gives everything to the user of the container when asked to', async () => {
    service.peers.images.add('users', {}, (layer) => {
      mkdirSync(join(layer, 'etc'));
      writeFileSync(join(layer, 'etc/passwd'), 'root:x:0:0::/:/bin/sh\napp:x:70:80::/:/bin/sh\n');
      writeFileSync(join(layer, 'etc/group'), 'root:x:0:\n');
    });
    const id = await create('owned', { image: 'users', config: { user: 'app' } });
    const tar = plainTar([
      { name: 'd/', type: '5', uid: 5, gid: 6 },
      { name: 'd/f', uid: 5, gid: 6 },
    ]);
    await cp.write('owned', '/tmp', tar, { copyUidGid: true });
    expect(statSync(join(upper(id), 'tmp/d'))).toMatchObject({ uid: 70, gid: 80 });
    expect(statSync(join(upper(id), 'tmp/d/f'))).toMatchObject({ uid: 70, gid: 80 });
    await cp.write('owned', '/tmp', tar);
    expect(statSync(join(upper(id), 'tmp/d/f'))).toMatchObject({ uid: 5, gid: 6 });
    await remove('owned');
  });

  it('unpacks only where it can and may', async () => {
    const id = await create('rules');
    const tar = plainTar([file('x', 'x')]);
    await expect(cp.write('rules', '/none', tar)).rejects.toThrow('Could not find the file /none in container rules');
    await expect(cp.write('rules', '/data/file', tar)).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: 'extraction point is not a directory',
    });
    const overDirectory = plainTar([file('sub', 'now a file')]);
    await expect(cp.write('rules', '/data', overDirectory)).rejects.toThrow(
      /cannot overwrite directory .* with non-dir/,
    );
    const overFile = plainTar([{ name: 'file/', type: '5' }]);
    await expect(cp.write('rules', '/data', overFile)).rejects.toThrow(
      /cannot overwrite non-directory .* with directory/,
    );
    await cp.write('rules', '/data', overDirectory, { noOverwriteDirNonDir: false });
    expect(readFileSync(join(upper(id), 'data/sub'), 'utf8')).toBe('now a file');
    // The directory itself keeps what it has.
    await cp.write('rules', '/data', plainTar([{ name: './', type: '5', mode: 0o700, uid: 9 }, file('./y', '')]));
    expect(statSync(join(upper(id), 'data'))).toMatchObject({ uid: 0 });
    expect(statSync(join(upper(id), 'data')).mode & 0o777).toBe(0o755);
    await expect(cp.write('rules', '/data', Buffer.alloc(2048, 'no tar'))).rejects.toMatchObject({
      kind: 'invalidArgument',
    });
    await expect(cp.write('rules', '/data', tar.subarray(0, 700))).rejects.toThrow('unexpected EOF');
    await cp.write('rules', '/data', Buffer.alloc(0));
    for (const [program, args] of [
      ['xz', ['-c']],
      ['bzip2', ['-c']],
      ['zstd', ['-cq']],
      ['gzip', ['-c']],
    ] as const) {
      const body = execFileSync(program, args, { input: plainTar([file(program, program)]) });
      await cp.write('rules', '/data', body);
      expect(readFileSync(join(upper(id), 'data', program), 'utf8')).toBe(program);
    }
    await expect(cp.write('rules', '/data', gzipSync(tar).subarray(0, 40))).rejects.toThrow('compressed data');
    await remove('rules');
    await noneLeft();
  });

  it('lets a start wait for a copy, and a removal end it', async () => {
    const id = await create('held');
    const first = openBody();
    const writing = cp.write('held', '/data', first.body);
    await waitUntil(() => existsSync(join(upper(id), 'data/begun')), { what: 'the first file' });
    const second = cp.stat('held', '/data/begun');
    const starting = start('held');
    await noneLeft();
    first.end();
    await writing;
    await second;
    await starting;
    // While it runs, copies go on side by side; its end waits for them, its removal does not.
    const third = openBody();
    const ended = cp.write('held', '/tmp', third.body).catch((error: unknown) => error);
    await waitUntil(() => existsSync(join(upper(id), 'tmp/begun')), { what: 'the third file' });
    expect((await cp.stat('held', '/tmp/begun')).name).toBe('begun');
    await remove('held');
    expect(await ended).toMatchObject({ kind: 'conflict', message: `container ${id} is being removed` });
    third.end();
    await noneLeft();
    expect(existsSync(upper(id))).toBe(false);
  });

  it('reads on when the container ends meanwhile', async () => {
    await create('ends');
    await start('ends');
    await cp.write('ends', '/data', plainTar([['big', Buffer.alloc(8 << 20, 'b')]]));
    const reading = service.client.readArchive({ name: 'ends', path: '/data' })[Symbol.asyncIterator]();
    await reading.next();
    await service.client.killContainer({ name: 'ends', signal: 'KILL' }, deadline);
    let bytes = 0;
    for (let next = await reading.next(); next.done !== true; next = await reading.next()) {
      const { frame } = next.value;
      if (frame?.$case === 'data') bytes += frame.value.length;
    }
    expect(bytes).toBeGreaterThan(8 << 20);
    // One that ends just now is looked at as one that runs or as one that does not, whichever it is.
    for (let round = 0; round < 5; round++) {
      await service.client.startContainer({ name: 'ends', checkpoint: '', checkpointDir: '' }, deadline);
      await service.client.killContainer({ name: 'ends', signal: 'KILL' }, deadline);
      expect((await cp.stat('ends', '/data/big')).name).toBe('big');
      await cp.write('ends', '/data', plainTar([file(`round-${round}`, 'x')]));
      await waitFor(service.client, 'ends');
    }
    await remove('ends');
  });

  it('keeps its threads for the next copy when one is refused', async () => {
    await create('refused');
    const refuse = () => expect(cp.stat('refused', '/none')).rejects.toMatchObject({ kind: 'notFound' });
    const threads = () => readdirSync('/proc/self/task').length;
    await refuse();
    const before = threads();
    for (let i = 0; i < 30; i += 1) await refuse();
    expect(threads() - before).toBeLessThan(10);
    await remove('refused');
  });

  it('takes no more than a slow reader does, and lets go of one that leaves', async () => {
    const id = await create('slow');
    await cp.write('slow', '/data', plainTar([['big', Buffer.alloc(32 << 20, 'b')]]));
    const reading = service.client.readArchive({ name: 'slow', path: '/data' })[Symbol.asyncIterator]();
    await reading.next();
    await reading.return(undefined);
    // The removal waits for what is left of it.
    await remove('slow');
    expect(existsSync(upper(id))).toBe(false);
    expect(
      readMounts().filter(({ target }) => target.startsWith(service.root) && target.includes('archive-root')),
    ).toEqual([]);
  });
});
