import { closeSync, readSync } from 'node:fs';
import { cancelled, dataLoss } from '@flotilla/errors';
import { POLLIN, POLLOUT, hasCode, poll, spliceToPipe } from '@flotilla/sys';
import type { Follow } from './layer-tasks.js';

const maxSpliceBytes = 1 << 20;
const rings = Buffer.alloc(4096);

/**
 * Reads a tar from a blob that grows: by itself when it is plain; else it hands the decompressor what has come of the
 * blob and reads what that makes of it. Blocks until there is something; holds no bytes of its own.
 */
export class FollowingReader {
  readonly #sourceFd: number;
  readonly #follow: Follow;
  readonly #stop: Int32Array;
  #codecFd: number;
  /** Bytes of the blob that were taken. */
  #taken = 0;

  /** `sourceFd`: the decompressor's output, or the blob itself. The descriptors are the caller's, but for `codecFd`. */
  constructor(sourceFd: number, follow: Follow, stop: Int32Array) {
    this.#sourceFd = sourceFd;
    this.#follow = follow;
    this.#stop = stop;
    this.#codecFd = follow.codecFd;
  }

  /** Fills a part of `buffer`; 0 at the end. @throws EngineError `cancelled`; `dataLoss` when the file has become shorter */
  read(buffer: Buffer): number {
    return this.#follow.blobFd < 0 ? this.#readPlain(buffer) : this.#readDecompressed(buffer);
  }

  #readPlain(buffer: Buffer): number {
    for (;;) {
      const { available, isWhole } = this.#state();
      if (this.#taken < available) {
        const count = readSync(this.#sourceFd, buffer, 0, Math.min(buffer.length, available - this.#taken), null);
        if (count === 0) throw becameShorter();
        this.#taken += count;
        return count;
      }
      if (isWhole) return 0;
      poll([{ fd: this.#follow.wakeFd, events: POLLIN }]);
      this.#clearRings();
    }
  }

  #readDecompressed(buffer: Buffer): number {
    for (;;) {
      const { available, isWhole } = this.#state();
      if (this.#codecFd >= 0 && this.#taken < available) this.#feed(available - this.#taken);
      if (this.#codecFd >= 0 && isWhole && this.#taken === available) this.close();
      const isHungry = this.#codecFd >= 0 && this.#taken < available;
      const [hasOutput, isRung] = poll([
        { fd: this.#sourceFd, events: POLLIN },
        { fd: this.#follow.wakeFd, events: POLLIN },
        { fd: isHungry ? this.#codecFd : -1, events: POLLOUT },
      ]);
      if (isRung === true) this.#clearRings();
      if (hasOutput === true) return readSync(this.#sourceFd, buffer, 0, buffer.length, null);
    }
  }

  #feed(bytes: number): void {
    try {
      const moved = spliceToPipe(this.#follow.blobFd, this.#codecFd, Math.min(bytes, maxSpliceBytes));
      if (moved === 0) throw becameShorter();
      this.#taken += moved ?? 0;
    } catch (error) {
      if (!hasCode(error, 'EPIPE')) throw error;
      this.close(); // the decompressor gave up, and will say why
    }
  }

  #state(): { available: number; isWhole: boolean } {
    if (Atomics.load(this.#stop, 0) !== 0) throw cancelled('cancelled');
    // In this order: the last bytes are announced before the end.
    const isWhole = Atomics.load(this.#follow.state, 1) !== 0n;
    return { available: Number(Atomics.load(this.#follow.state, 0)), isWhole };
  }

  #clearRings(): void {
    try {
      readSync(this.#follow.wakeFd, rings);
    } catch (error) {
      if (!hasCode(error, 'EAGAIN')) throw error;
    }
  }

  /** Ends what the decompressor is given. */
  close(): void {
    if (this.#codecFd < 0) return;
    closeSync(this.#codecFd);
    this.#codecFd = -1;
  }
}

const becameShorter = () => dataLoss('the blob became shorter while it was read');
