import { readSync } from 'node:fs';
import { cancelled, dataLoss } from '@flotilla/errors';
import { POLLIN, hasCode, poll } from '@flotilla/sys';
import type { ArrivingTaskPart } from './layer-tasks.js';

/** Reads a part of what arrives at a descriptor that does not block, and not a byte more. Blocks until there is something. */
export class ArrivingReader {
  readonly #fd: number;
  readonly #part: ArrivingTaskPart;
  readonly #stop: Int32Array;
  #taken = 0;

  /** The descriptors are the caller's. */
  constructor(fd: number, part: ArrivingTaskPart, stop: Int32Array) {
    this.#fd = fd;
    this.#part = part;
    this.#stop = stop;
  }

  /** Fills a part of `buffer`; 0 at the end. @throws EngineError `cancelled`; `dataLoss` when it ends before its length */
  read(buffer: Buffer): number {
    const { head, length, wakeFd } = this.#part;
    if (this.#taken < head.length) {
      const piece = head.subarray(this.#taken, this.#taken + buffer.length);
      buffer.set(piece);
      this.#taken += piece.length;
      return piece.length;
    }
    const wanted = Math.min(buffer.length, length - this.#taken);
    if (wanted === 0) return 0;
    for (;;) {
      if (Atomics.load(this.#stop, 0) !== 0) throw cancelled('cancelled');
      const count = this.#readReady(buffer, wanted);
      if (count === undefined) {
        poll([
          { fd: this.#fd, events: POLLIN },
          { fd: wakeFd, events: POLLIN },
        ]);
        continue;
      }
      if (count === 0 && Number.isFinite(length)) throw dataLoss('archive/tar: unexpected EOF');
      this.#taken += count;
      return count;
    }
  }

  /** Reads away what is left of a part whose length is known. */
  drain(buffer: Buffer): void {
    if (!Number.isFinite(this.#part.length)) return;
    while (this.#taken < this.#part.length) this.read(buffer);
  }

  /** undefined: nothing is there now. */
  #readReady(buffer: Buffer, wanted: number): number | undefined {
    try {
      return readSync(this.#fd, buffer, 0, wanted, null);
    } catch (error) {
      if (hasCode(error, 'EAGAIN')) return undefined;
      throw error;
    }
  }
}
