import { readSync } from 'node:fs';
import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { hasCode } from '@flotilla/sys';
import { HEADROOM_BYTES } from './files/log-file-writer.js';

/** At most this much is read at once: what a killed process loses at most, as everything that was read is appended before the next read. */
export const READ_BYTES = 64 * 1024;

/** A buffer for `FifoReader`s of one thread to share: it holds data only while `onData` runs. */
export function readBuffer(): Buffer {
  return Buffer.allocUnsafeSlow(HEADROOM_BYTES + READ_BYTES);
}

/** Reads a FIFO as data comes, through the event loop's own polling and without its thread pool. */
export class FifoReader {
  readonly #fd: number;
  readonly #buffer: Buffer;
  readonly #socket: Socket;
  readonly #onData: (buffer: Buffer, start: number, end: number) => void;
  readonly #onEnd: () => void;
  #isPaused = false;
  #isFinishing = false;
  #hasEnded = false;

  /**
   * Takes over `fd`, which does not block. `onData` gets `buffer[start, end)` in the same step as the read; the `HEADROOM_BYTES` before it are free to use.
   * `onEnd` comes once, when all writers are gone.
   */
  constructor(
    fd: number,
    buffer: Buffer,
    onData: (buffer: Buffer, start: number, end: number) => void,
    onEnd: () => void,
  ) {
    this.#fd = fd;
    this.#buffer = buffer;
    this.#onData = onData;
    this.#onEnd = onEnd;
    const options: SocketConstructorOpts & ConnectOpts = {
      fd,
      readable: true,
      writable: false,
      onread: {
        buffer: buffer.subarray(HEADROOM_BYTES),
        callback: (length) => {
          this.#onData(buffer, HEADROOM_BYTES, HEADROOM_BYTES + length);
          return !this.#isPaused;
        },
      },
    };
    this.#socket = new Socket(options);
    this.#socket.on('end', () => this.#end());
    this.#socket.on('error', () => this.#end());
  }

  pause(): void {
    this.#isPaused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (this.#isFinishing) this.#drain();
    if (!this.#hasEnded && !this.isPaused) this.#socket.resume();
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  /** The process that wrote has ended. If no writer is left, the end comes when all was read. */
  finish(): void {
    if (this.#isFinishing) return;
    this.#isFinishing = true;
    if (!this.#isPaused) this.#drain();
  }

  close(): void {
    this.#hasEnded = true;
    this.#socket.destroy();
  }

  /** A FIFO that was opened when its writers were already gone is never reported as ended: read until nothing comes. */
  #drain(): void {
    while (!this.#hasEnded && !this.isPaused) {
      let length: number;
      try {
        length = readSync(this.#fd, this.#buffer, HEADROOM_BYTES, READ_BYTES, null);
      } catch (error) {
        // A writer is left: the end will be reported.
        if (hasCode(error, 'EAGAIN')) return;
        throw error;
      }
      if (length === 0) this.#end();
      else this.#onData(this.#buffer, HEADROOM_BYTES, HEADROOM_BYTES + length);
    }
  }

  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#socket.destroy();
    this.#onEnd();
  }
}
