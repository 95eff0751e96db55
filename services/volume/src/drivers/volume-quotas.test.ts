import { mkdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SysError, type FileProject, type ProjectQuotas } from '@flotilla/sys';
import { makeTempDir } from '@flotilla/testkit';
import { adoptProject } from './adopt-project.js';
import { VolumeQuotas } from './volume-quotas.js';

/** A file system with project quotas, as far as the numbers go; of a new file nobody inherits anything. */
function fakeQuotas(isEnforced = true) {
  const projects = new Map<string, FileProject>();
  const limits = new Map<number, bigint>();
  const pathOf = (fd: number) => readlinkSync(`/proc/self/fd/${fd}`);
  const quotas: Pick<ProjectQuotas, 'areEnforced' | 'projectOf' | 'setProject' | 'setLimit' | 'usage'> = {
    areEnforced: () => isEnforced,
    projectOf: (fd) => projects.get(pathOf(fd)) ?? { id: 0, isInherited: false },
    setProject: (fd, project) => void projects.set(pathOf(fd), project),
    setLimit: (_fd, id, bytes) => void limits.set(id, bytes),
    usage: (_fd, id) => ({
      limitBytes: limits.get(id) ?? 0n,
      usedBytes: 0n,
      files: BigInt([...projects.values()].filter((project) => project.id === id).length),
    }),
  };
  return { quotas: quotas as ProjectQuotas, projects, limits };
}

const adoptWith = (quotas: ProjectQuotas) => (directory: string, id: number) => {
  adoptProject(quotas, directory, id, () => undefined);
  return Promise.resolve();
};

describe('sizes of volumes', () => {
  it('are projects of their own, also for what is there already, and go with them', async () => {
    await using root = await makeTempDir('quotas');
    const { quotas, projects, limits } = fakeQuotas();
    const stranger = join(root.path, 'stranger');
    mkdirSync(stranger);
    projects.set(stranger, { id: 2, isInherited: true });
    projects.set(root.path, { id: 0, isInherited: false });
    for (const name of ['one/_data/sub', 'two/_data']) mkdirSync(join(root.path, name), { recursive: true });
    writeFileSync(join(root.path, 'one/_data/sub/file'), '');
    const sizes = VolumeQuotas.open(root.path, adoptWith(quotas), quotas);
    await sizes?.limit(join(root.path, 'one'), 1000n);
    await sizes?.limit(join(root.path, 'two'), 2000n);
    // Two is somebody else's.
    expect(limits).toEqual(new Map([[1, 1000n], [3, 2000n]])); // prettier-ignore
    for (const name of ['one', 'one/_data', 'one/_data/sub'])
      expect(projects.get(join(root.path, name))).toEqual({ id: 1, isInherited: true });
    expect(projects.get(join(root.path, 'one/_data/sub/file'))).toEqual({ id: 1, isInherited: false });
    // After a restart, and a limit that was lost.
    limits.delete(1);
    const again = VolumeQuotas.open(root.path, adoptWith(quotas), quotas);
    await again?.limit(join(root.path, 'one'), 1000n);
    expect(limits.get(1)).toBe(1000n);
    again?.release(join(root.path, 'one'));
    again?.release(join(root.path, 'missing'));
    expect(limits.get(1)).toBe(0n);
    rmSync(join(root.path, 'one'), { recursive: true });
    for (const path of projects.keys()) if (path.includes('/one')) projects.delete(path);
    await again?.limit(join(root.path, 'two'), 3000n);
    expect(limits).toEqual(new Map([[1, 0n], [3, 3000n]])); // prettier-ignore
  });

  it('leave no limit without a volume when they are cut', async () => {
    await using root = await makeTempDir('quotas');
    const { quotas, limits } = fakeQuotas();
    quotas.setLimit = () => {
      throw new SysError('set the limit', 5);
    };
    const directory = join(root.path, 'one');
    mkdirSync(directory);
    const sizes = VolumeQuotas.open(root.path, adoptWith(quotas), quotas);
    await expect(sizes?.limit(directory, 1000n)).rejects.toThrow('set the limit');
    expect(limits.size).toBe(0);
    quotas.setLimit = (_fd, id, bytes) => void limits.set(id, bytes);
    await VolumeQuotas.open(root.path, adoptWith(quotas), quotas)?.limit(directory, 1000n);
    expect(limits).toEqual(new Map([[1, 1000n]]));
  });

  it('are none where nothing is enforced, or files have no projects', async () => {
    await using root = await makeTempDir('quotas');
    const none = fakeQuotas(false).quotas;
    expect(VolumeQuotas.open(root.path, adoptWith(none), none)).toBeUndefined();
    const { quotas } = fakeQuotas();
    quotas.projectOf = () => {
      throw new SysError('read the project', 25);
    };
    expect(VolumeQuotas.open(root.path, adoptWith(quotas), quotas)).toBeUndefined();
  });
});
