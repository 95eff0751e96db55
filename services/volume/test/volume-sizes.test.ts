import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, statSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ProjectQuotas, umountAll } from '@flotilla/sys';
import { makeTempDir, mountExt4Disk, type Ext4Disk } from '@flotilla/testkit';
import { adoptProject } from '../src/drivers/adopt-project.js';
import { VolumeQuotas } from '../src/drivers/volume-quotas.js';

const mebibyte = 1n << 20n;

/** An ext4 with project quotas, where the kernel has them. */
function mountWithQuotas(directory: string): Ext4Disk | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const options = { mebibytes: 64, features: ['project', 'quota'], mountOptions: ['prjquota'] };
  try {
    return mountExt4Disk(join(directory, 'disk'), join(directory, 'mounted'), options);
  } catch {
    return undefined;
  }
}

/** As a container does: without the capability to go beyond limits. */
function write(path: string, mebibytes: number): string {
  const dd = ['dd', 'if=/dev/zero', `of=${path}`, 'bs=64k', `count=${mebibytes * 16}`];
  return spawnSync('setpriv', ['--bounding-set', '-sys_resource', '--inh-caps', '-sys_resource', ...dd], {
    encoding: 'utf8',
  }).stderr;
}

describe('sizes of volumes on ext4', () => {
  it('are kept by the kernel (needs root and a kernel with project quotas)', async ({ skip }) => {
    await using directory = await makeTempDir('volume-sizes');
    const disk = mountWithQuotas(directory.path);
    if (disk === undefined) return skip('no project quotas for ext4 in this kernel');
    try {
      const root = join(disk.target, 'volumes');
      for (const name of ['one', 'two']) mkdirSync(join(root, name, '_data'), { recursive: true });
      const sizes = VolumeQuotas.open(root, (target, id) => {
        adoptProject(new ProjectQuotas(), target, id, () => undefined);
        return Promise.resolve();
      });
      await sizes?.limit(join(root, 'one'), mebibyte);
      await sizes?.limit(join(root, 'two'), 2n * mebibyte);
      for (const [name, limit] of [
        ['one', 1],
        ['two', 2],
      ] as const) {
        // prettier-ignore
        const below = join(root, name, '_data/sub');
        mkdirSync(below);
        expect(write(join(below, 'file'), 3)).toContain('Disk quota exceeded');
        expect(statSync(join(below, 'file')).size).toBeLessThanOrEqual(limit << 20);
        const { blocks, bsize } = statfsSync(below);
        expect(blocks * bsize).toBe(limit << 20);
      }
      sizes?.release(join(root, 'one'));
      expect(write(join(root, 'one/_data/sub/file'), 3)).not.toContain('exceeded');
    } finally {
      umountAll(disk.target);
      await disk.released();
    }
    expect(execFileSync('losetup', ['-ln', '-O', 'BACK-FILE'], { encoding: 'utf8' })).not.toContain(directory.path);
  });
});
