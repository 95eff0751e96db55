import { closeSync, constants, existsSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { mkfifo, setPipeSize } from '@flotilla/sys';
import type { TaskIo } from './shim-client.js';

/** Four times the default: what a busy container writes while we are not looking, so that it and we take turns less often. */
export const FIFO_BYTES = 256 * 1024;

/** The FIFOs of a process, named by a prefix in the container's bundle. */
export class TaskFifos {
  readonly io: TaskIo;

  private constructor(io: TaskIo) {
    this.io = io;
  }

  /** Makes the FIFOs, over what an earlier run left. */
  static make(bundle: string, prefix: string, terminal: boolean, withStdin: boolean): TaskFifos {
    const fifos = TaskFifos.at(bundle, prefix, terminal, withStdin);
    fifos.remove();
    for (const path of fifos.#paths()) mkfifo(path, 0o600);
    return fifos;
  }

  /** FIFOs that exist. Whether there is one for standard input is looked up. */
  static existing(bundle: string, prefix: string, terminal: boolean): TaskFifos {
    return TaskFifos.at(bundle, prefix, terminal, existsSync(join(bundle, `${prefix}stdin`)));
  }

  private static at(bundle: string, prefix: string, terminal: boolean, withStdin: boolean): TaskFifos {
    const path = (name: string) => join(bundle, `${prefix}${name}`);
    return new TaskFifos({
      terminal,
      stdin: withStdin ? path('stdin') : '',
      stdout: path('stdout'),
      // A terminal has one output.
      stderr: terminal ? '' : path('stderr'),
    });
  }

  /** Read ends that do not block. The caller closes them. */
  openOutput(): { stdoutFd: number; stderrFd: number | undefined } {
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    const stdoutFd = openSync(this.io.stdout, flags);
    setPipeSize(stdoutFd, FIFO_BYTES);
    if (this.io.stderr === '') return { stdoutFd, stderrFd: undefined };
    try {
      return { stdoutFd, stderrFd: openSync(this.io.stderr, flags) };
    } catch (error) {
      closeSync(stdoutFd);
      throw error;
    }
  }

  remove(): void {
    for (const path of this.#paths()) rmSync(path, { force: true });
  }

  #paths(): string[] {
    return [this.io.stdin, this.io.stdout, this.io.stderr].filter((path) => path !== '');
  }
}
