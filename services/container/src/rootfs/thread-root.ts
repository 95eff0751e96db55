import { closeSync, constants, openSync } from 'node:fs';
import { CLONE_FS, chdir, chroot, fchdir, umask, unshare } from '@flotilla/sys';

/**
 * Root directory of one worker thread, which it may leave and come back to.
 *
 * While inside, only synchronous calls see the other root: libuv's pool threads keep the process's own.
 */
export class ThreadRoot implements Disposable {
  readonly #hostRoot: number;

  constructor() {
    this.#hostRoot = openSync('/', constants.O_RDONLY | constants.O_DIRECTORY);
    unshare(CLONE_FS);
    umask(0);
  }

  /** Run `fn` with `root` as `/` of this thread and, when given, `cwd` (a directory outside or inside) as its working directory. */
  within<T>(root: string, cwd: string | undefined, fn: () => T): T {
    const outside = cwd === undefined ? undefined : openSync(cwd, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      chroot(root);
      if (outside === undefined) chdir('/');
      else fchdir(outside);
      return fn();
    } finally {
      if (outside !== undefined) closeSync(outside);
      fchdir(this.#hostRoot);
      chroot('.');
    }
  }

  /** It is back in its own root, and stays there. */
  [Symbol.dispose](): void {
    closeSync(this.#hostRoot);
  }
}
