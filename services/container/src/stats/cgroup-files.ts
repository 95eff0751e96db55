import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const hierarchyRoot = '/sys/fs/cgroup';

/** The control files of a process's cgroups, by cgroup v1 controller or from the one v2 hierarchy. */
export class CgroupFiles {
  readonly version: 1 | 2;
  readonly #directories: ReadonlyMap<string, string>;

  /** `table`: a /proc/<pid>/cgroup as it is seen in the host's cgroup namespace. */
  constructor(table: string, root = hierarchyRoot) {
    const directories = new Map<string, string>();
    for (const line of table.split('\n')) {
      const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
      if (controllers === undefined || path === undefined) continue;
      for (const controller of controllers.split(',')) {
        directories.set(controller, controller === '' ? join(root, path) : join(root, controller, path));
      }
    }
    this.version = directories.has('memory') || directories.has('cpuacct') ? 1 : 2;
    this.#directories = directories;
  }

  /** @throws Error of node:fs when the process is gone. */
  static ofProcess(pid: number): CgroupFiles {
    return new CgroupFiles(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
  }

  /** Text of a file; empty where the kernel has none. The controller counts in v1 only. */
  read(controller: string, file: string): string {
    const directory = this.#directories.get(this.version === 1 ? controller : '');
    if (directory === undefined) return '';
    try {
      return readFileSync(join(directory, file), 'utf8');
    } catch {
      return '';
    }
  }

  /** A file that holds one number; undefined for none and for `max`. */
  number(controller: string, file: string): number | undefined {
    const text = this.read(controller, file).trim();
    return /^\d+$/.test(text) ? Number(text) : undefined;
  }

  /** A file of `name number` lines; numbers that do not fit a double keep all their digits. */
  table(controller: string, file: string): Record<string, number | bigint> {
    const values: Record<string, number | bigint> = {};
    for (const line of this.read(controller, file).split('\n')) {
      const [name, value] = line.split(' ');
      if (name !== undefined && name !== '' && value !== undefined && /^\d+$/.test(value))
        values[name] = Number.isSafeInteger(Number(value)) ? Number(value) : BigInt(value);
    }
    return values;
  }
}
