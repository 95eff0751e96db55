import { constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { setPipeSize } from '@flotilla/sys';
import { FIFO_BYTES } from './task-fifos.js';

/**
 * The write end of a process's standard input. Opened for reading too, so that opening never waits for the shim; the shim holds a write end of its own,
 * therefore the process sees the end only after `closeInShim`.
 */
export class StdinWriter {
  readonly #socket: Socket;
  readonly #closeInShim: () => Promise<void>;
  #isEnding = false;
  #waiting: (() => void)[] = [];

  /** @throws Error of node:fs when the FIFO is not there. */
  constructor(path: string, closeInShim: () => Promise<void>) {
    this.#closeInShim = closeInShim;
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
    setPipeSize(fd, FIFO_BYTES);
    this.#socket = new Socket({ fd, readable: false, writable: true });
    this.#socket.on('drain', () => this.#wake());
    // The process ended with input left, or the container is gone: nobody is interested in the rest.
    this.#socket.on('error', () => this.#wake());
    this.#socket.on('close', () => this.#wake());
  }

  /** Settles when the next chunk may come. Chunks that come after the end are thrown away. `taken`: it is in the pipe, which outlives this process. */
  async write(chunk: Uint8Array, taken?: () => void): Promise<void> {
    if (this.#isEnding || this.#socket.destroyed) {
      taken?.();
      return;
    }
    if (this.#socket.write(chunk, taken)) return;
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** The process reads what was written, then the end. */
  end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#socket.end(() => {
      this.#socket.destroy();
      // A process that ended meanwhile has no standard input to close.
      this.#closeInShim().catch(() => undefined);
    });
  }

  /** Let go: the process's standard input stays open. */
  destroy(): void {
    this.#isEnding = true;
    this.#socket.destroy();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}
