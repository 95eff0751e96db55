import { closeSync, openSync, unlinkSync } from 'node:fs';
import { CLONE_NEWNET, MNT_DETACH, MS_BIND, bind, hasCode, mount, setns, umount, unshare } from '@flotilla/sys';

const abort = bind('void abort(void)');
const OWN_NAMESPACE = '/proc/thread-self/ns/net';

/**
 * Network namespaces, entered and left synchronously by the calling thread.
 *
 * Keep one per thread that needs it, made while the thread is in the namespace that it belongs to. No `await` can happen
 * inside: nothing else runs on the thread until it is back. If the way back fails the process aborts, for a thread that
 * is in the wrong namespace without knowing would do harm with every later call.
 */
export class NamespaceSwitch {
  readonly #home = openSync(OWN_NAMESPACE, 'r');

  /** Run `fn` inside the namespace behind `fd`. `fn` must be synchronous. */
  inNamespace<T>(fd: number, fn: () => T): T {
    setns(fd, CLONE_NEWNET);
    try {
      return fn();
    } finally {
      this.#goHome();
    }
  }

  /**
   * Make a namespace that lives as long as the bind mount at `path` (or a process or descriptor inside).
   *
   * @returns an open descriptor of it, which the caller closes
   * @throws SysError; nothing stays at `path` then
   */
  create(path: string): number {
    closeSync(openSync(path, 'wx', 0o444));
    try {
      unshare(CLONE_NEWNET);
      try {
        mount(OWN_NAMESPACE, path, null, MS_BIND);
        return openSync(OWN_NAMESPACE, 'r');
      } finally {
        this.#goHome();
      }
    } catch (error) {
      removeNamespace(path);
      throw error;
    }
  }

  close(): void {
    closeSync(this.#home);
  }

  #goHome(): void {
    try {
      setns(this.#home, CLONE_NEWNET);
    } catch {
      abort();
    }
  }
}

/**
 * Keep the namespace behind `source` at `path` as one that was made there.
 *
 * @returns an open descriptor of it, which the caller closes
 * @throws SysError; nothing stays at `path` then
 */
export function adoptNamespace(source: string, path: string): number {
  closeSync(openSync(path, 'wx', 0o444));
  try {
    mount(source, path, null, MS_BIND);
    return openSync(path, 'r');
  } catch (error) {
    removeNamespace(path);
    throw error;
  }
}

/** Take away the bind mount and the file of a namespace; nothing there is fine. */
export function removeNamespace(path: string): void {
  try {
    umount(path, MNT_DETACH);
  } catch (error) {
    if (!hasCode(error, 'EINVAL', 'ENOENT')) throw error;
  }
  try {
    unlinkSync(path);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
}
