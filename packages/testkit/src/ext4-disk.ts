import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, rmdirSync } from 'node:fs';
import { type Call, bind, checkResult } from '@flotilla/sys';
import { waitFor } from './wait-for.js';

const ioctl: Call<[number, bigint, Uint32Array]> = bind('int ioctl(int fd, uint64_t request, uint32_t *argument)');
// linux/ext4.h: end all writing at once, what the journal has not yet got is lost.
const EXT4_IOC_SHUTDOWN = 0x8004587dn;
const EXT4_GOING_FLAGS_NOLOGFLUSH = 2;

export interface Ext4DiskOptions {
  readonly mebibytes: number;
  /** Room for so many files; mkfs decides when absent. */
  readonly inodes?: number;
  /** For mkfs(8), beside its own. */
  readonly features?: readonly string[];
  /** For mount(8), beside `loop`. */
  readonly mountOptions?: readonly string[];
}

/** An ext4 file system of a test's own, in a file on a loop device. */
export interface Ext4Disk {
  readonly target: string;
  /**
   * The power goes: of what was written only that is left which was synced, and what the kernel happened to have written. Every later call on
   * the file system fails with EIO.
   */
  cutPower(): void;
  /** After `cutPower`: the journal is replayed, and it is as the next boot finds it. */
  mountAgain(): void;
  /** Resolves when nobody uses it any more after it was unmounted. */
  released(): Promise<void>;
}

/** Make a file system in `file` and mount it on `target`, which is made; the loop device goes with the last mount. Needs root and loop devices. */
export function mountExt4Disk(file: string, target: string, options: Ext4DiskOptions): Ext4Disk {
  const { mebibytes, inodes, features = [], mountOptions = [] } = options;
  mkdirSync(target, { recursive: true, mode: 0o711 });
  execFileSync('truncate', ['-s', `${mebibytes}M`, file]);
  const count = inodes === undefined ? [] : ['-N', String(inodes)];
  const more = features.length === 0 ? [] : ['-O', features.join()];
  execFileSync('mkfs.ext4', ['-q', '-m', '0', ...count, ...more, '-E', 'lazy_itable_init=0', file]);
  let current = file;
  const mount = () =>
    execFileSync('mount', ['-o', ['loop', ...mountOptions].join(), current, target], { stdio: 'pipe' });
  mount();
  rmdirSync(`${target}/lost+found`);
  return {
    target,
    cutPower() {
      const fd = openSync(target, 'r');
      try {
        checkResult(ioctl(fd, EXT4_IOC_SHUTDOWN, Uint32Array.of(EXT4_GOING_FLAGS_NOLOGFLUSH)), `shut down ${target}`);
      } finally {
        closeSync(fd);
      }
    },
    mountAgain() {
      execFileSync('umount', ['-l', target]);
      // Whoever has copied the mounts meanwhile keeps the one that is shut down: another file is another file system.
      const next = `${current}+`;
      execFileSync('cp', ['--sparse=always', current, next]);
      rmSync(current);
      current = next;
      mount();
    },
    async released() {
      const files = () => execFileSync('losetup', ['-ln', '-O', 'BACK-FILE'], { encoding: 'utf8' });
      await waitFor(() => !files().includes(current), { what: 'the loop device to be gone' });
    },
  };
}
