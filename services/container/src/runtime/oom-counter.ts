import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

/**
 * Tells whether the kernel killed a process of a cgroup for want of memory, from a descriptor that is opened while the cgroup exists.
 * The shim's events come too late for the answer to "how did it end".
 */
export class OomCounter {
  readonly #fd: number | undefined;
  #seen = false;

  constructor(pid: number) {
    this.#fd = openMemoryEvents(pid);
  }

  /** An event came. */
  mark(): void {
    this.#seen = true;
  }

  /** To be asked before the cgroup is removed. */
  get isOomKilled(): boolean {
    if (this.#seen || this.#fd === undefined) return this.#seen;
    const buffer = Buffer.alloc(1024);
    try {
      const length = readSync(this.#fd, buffer, 0, buffer.length, 0);
      // `oom_kill N` stands in memory.events (v2) and in memory.oom_control (v1).
      this.#seen = /^oom_kill [1-9]/m.test(buffer.toString('latin1', 0, length));
    } catch {
      // The cgroup is gone.
    }
    return this.#seen;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
  }
}

function openMemoryEvents(pid: number): number | undefined {
  try {
    const lines = readFileSync(`/proc/${pid}/cgroup`, 'utf8').split('\n');
    const v1 = lines.find((line) => /^\d+:([^:]*,)?memory(,[^:]*)?:/.test(line));
    if (v1 !== undefined) return openSync(`/sys/fs/cgroup/memory${afterColons(v1)}/memory.oom_control`, 'r');
    const v2 = lines.find((line) => line.startsWith('0::'));
    return v2 === undefined ? undefined : openSync(`/sys/fs/cgroup${afterColons(v2)}/memory.events`, 'r');
  } catch {
    return undefined;
  }
}

function afterColons(line: string): string {
  return line.slice(line.indexOf(':', line.indexOf(':') + 1) + 1);
}
