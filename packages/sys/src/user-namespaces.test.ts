import { execFileSync } from 'node:child_process';
import {
  chownSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  NamespaceHolder,
  asFileOwner,
  attachClone,
  attachTree,
  cloneMount,
  inOwnMounts,
  mappedRoot,
  mount,
  mountOverlay,
  readMounts,
  toContainerId,
  toHostId,
  umountAll,
} from './index.js';
import { mountOverlayByOptions } from './overlay.js';

const mappings = {
  uids: [
    { containerId: 0, hostId: 200000, size: 1000 },
    { containerId: 1000, hostId: 50000, size: 10 },
  ],
  gids: [{ containerId: 0, hostId: 300000, size: 65536 }],
};

describe('ids of a mapping', () => {
  it.each([
    [0, 200000],
    [999, 200999],
    [1000, 50000],
    [1009, 50009],
    [1010, undefined],
  ])('%d inside is %s outside', (inside, outside) => {
    expect(toHostId(mappings.uids, inside)).toBe(outside);
    if (outside !== undefined) expect(toContainerId(mappings.uids, outside)).toBe(inside);
  });

  it('are nobody inside when they have none', () => {
    for (const id of [0, 199999, 201000, 50010]) expect(toContainerId(mappings.uids, id)).toBe(65534);
  });

  it('have a root, or not', () => {
    expect(mappedRoot(mappings)).toEqual({ uid: 200000, gid: 300000 });
    expect(mappedRoot({ uids: [], gids: mappings.gids })).toBeUndefined();
  });
});

describe.runIf(process.getuid?.() === 0)('user namespaces (needs root)', () => {
  const base = mkdtempSync('/dev/shm/flotilla-userns-');
  afterAll(() => {
    for (const { target } of readMounts()) if (target.startsWith(base)) umountAll(target);
    rmSync(base, { recursive: true, force: true });
  });

  it('are held by a process until it is disposed, with a network namespace that is theirs', async () => {
    const holder = await NamespaceHolder.inNewUserNamespace(mappings, { network: true });
    const inside = (...command: string[]) =>
      execFileSync('nsenter', [`--user=${holder.path('user')}`, `--net=${holder.path('net')}`, '--', ...command], {
        encoding: 'utf8',
      });
    expect(inside('cat', '/proc/self/uid_map').trim().split(/\s+/).map(Number)).toEqual([
      ...[0, 200000, 1000],
      ...[1000, 50000, 10],
    ]);
    inside('ip', 'link', 'set', 'lo', 'up');
    await using second = await NamespaceHolder.inNewNetwork(holder.path('user'));
    expect(statSync(second.path('user')).ino).toBe(statSync(holder.path('user')).ino);
    expect(statSync(second.path('net')).ino).not.toBe(statSync(holder.path('net')).ino);
    const path = holder.path('user');
    await holder[Symbol.asyncDispose]();
    expect(() => readFileSync(path)).toThrow();
  });

  it('say why they cannot be', async () => {
    const overlapping = { ...mappings, uids: [...mappings.uids, ...mappings.uids] };
    await expect(NamespaceHolder.inNewUserNamespace(overlapping, { network: false })).rejects.toThrow(
      'the kernel refuses the mapping of ids',
    );
    await expect(NamespaceHolder.inNewNetwork(join(base, 'none'))).rejects.toThrow('No such file or directory');
  });

  it('show the files of a tree with their ids', async () => {
    const [source, target] = [join(base, 'source'), join(base, 'target')];
    for (const directory of [source, target]) mkdirSync(directory);
    writeFileSync(join(source, 'file'), '');
    chownSync(join(source, 'file'), 1003, 7);
    await using holder = await NamespaceHolder.inNewUserNamespace(mappings, { network: false });
    const [idMap, fd] = [openSync(holder.path('user'), 'r'), openSync(source, 'r')];
    attachTree(fd, target, { idMap });
    for (const one of [idMap, fd]) closeSync(one);
    expect(statSync(target)).toMatchObject({ uid: 200000, gid: 300000 });
    expect(statSync(join(target, 'file'))).toMatchObject({ uid: 50003, gid: 300007 });
    chownSync(join(target, 'file'), 200001, 300001);
    expect(statSync(join(source, 'file'))).toMatchObject({ uid: 1, gid: 1 });
  });

  it.each([
    ['by context', mountOverlay],
    ['by the options of mount(2), for older kernels', mountOverlayByOptions],
  ])('are the ids of an overlay of such trees, %s', async (_way, mountIt) => {
    const directory = mkdtempSync(join(base, 'overlay-'));
    const at = (name: string) => join(directory, name);
    for (const name of ['lower', 'top/upper', 'top/work', 'target']) mkdirSync(at(name), { recursive: true });
    for (const name of ['kept', 'changed']) writeFileSync(at(`lower/${name}`), 'x');
    await using holder = await NamespaceHolder.inNewUserNamespace(mappings, { network: false });
    const idMap = openSync(holder.path('user'), 'r');
    const root = mappedRoot(mappings) ?? { uid: 0, gid: 0 };
    const show = (name: string): string => {
      const shown = join(at('target'), name);
      mkdirSync(shown);
      const fd = openSync(at(name), 'r');
      attachTree(fd, shown, { idMap });
      closeSync(fd);
      return shown;
    };
    const clone = inOwnMounts(() => {
      mount('tmpfs', at('target'), 'tmpfs');
      const [lower, top, target] = [show('lower'), show('top'), join(at('target'), 'merged')];
      mkdirSync(target);
      return asFileOwner(root, () => {
        mountIt({ lower: [lower], upper: join(top, 'upper'), work: join(top, 'work'), target });
        const fd = openSync(target, 'r');
        const made = cloneMount(fd);
        closeSync(fd);
        return made;
      });
    });
    expect(readMounts().some(({ target }) => target.startsWith(directory))).toBe(false);
    attachClone(clone, at('target'));
    for (const fd of [clone, idMap]) closeSync(fd);
    expect(statSync(at('target/kept'))).toMatchObject(root);
    asFileOwner(root, () => {
      writeFileSync(at('target/changed'), 'y');
      writeFileSync(at('target/new'), 'z');
    });
    for (const name of ['changed', 'new']) expect(statSync(at(`top/upper/${name}`))).toMatchObject({ uid: 0, gid: 0 });
    expect(() => writeFileSync(at('target/stranger'), '')).toThrow('EOVERFLOW');
  });
});
