import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A move waits this long for a moment without starts... */
const QUIET_MS = 100;
/** ...and is done at the latest after this. */
const LATEST_MS = 2000;

/**
 * Puts shims into a cgroup of their own, where no stop of a service's unit or pod takes them along.
 *
 * The kernel lets no process be started while one is moved, 10-20 ms each time: so it is done between starts, and not for containers that have ended
 * by then.
 */
export class ShimCgroups {
  readonly #onError: (error: unknown) => void;
  readonly #waiting: { pid: number; cgroup: string; since: number }[] = [];
  #starts = 0;
  #timer: NodeJS.Timeout | undefined;
  #isMoving = false;

  constructor(onError: (error: unknown) => void) {
    this.#onError = onError;
  }

  /** Soon. Failures go to `onError`. */
  move(pid: number, cgroup: string): void {
    this.#waiting.push({ pid, cgroup, since: performance.now() });
    this.#schedule();
  }

  /** A container is being started, until the result is disposed of. */
  pause(): Disposable {
    this.#starts++;
    return {
      [Symbol.dispose]: () => {
        this.#starts--;
        this.#schedule();
      },
    };
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    const first = this.#waiting[0];
    if (first === undefined || this.#isMoving) return;
    const left = LATEST_MS - (performance.now() - first.since);
    const delay = this.#starts === 0 ? Math.min(QUIET_MS, left) : left;
    this.#timer = setTimeout(() => void this.#moveAll(), Math.max(0, delay)).unref();
  }

  async #moveAll(): Promise<void> {
    this.#isMoving = true;
    for (const { pid, cgroup } of this.#waiting.splice(0)) {
      try {
        if (existsSync(`/proc/${pid}`)) await moveProcess(pid, cgroup);
      } catch (error) {
        this.#onError(error);
      }
    }
    this.#isMoving = false;
    this.#schedule();
  }
}

/** The unified hierarchy is what systemd looks at where there is one, else its own. Does nothing where neither is mounted. */
async function moveProcess(pid: number, cgroup: string): Promise<void> {
  const roots = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified', '/sys/fs/cgroup/systemd'];
  const root = roots.find((path) => existsSync(join(path, 'cgroup.procs')));
  if (root === undefined) return;
  const directory = join(root, cgroup);
  await mkdir(directory, { recursive: true });
  try {
    await writeFile(join(directory, 'cgroup.procs'), String(pid));
  } catch (error) {
    // It has just ended.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
