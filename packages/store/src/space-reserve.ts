import { open, rm, stat, statfs, truncate } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** What LevelDB needs at most to open a directory again and to take a few batches: its write buffer twice. */
const partBytes = 4 << 20;
/** Whoever fills the disk may take the first part before it is used; the second is for when they are dead. */
const fullBytes = 2 * partBytes;
/** A disk with less room than this is left alone. */
const amplyFree = 4 * fullBytes;
const betweenTriesMs = 10_000;

/**
 * Room on the disk that is kept for the time when nothing is left: a container may fill the disk, and its end and
 * removal, which give the room back, have to be written down.
 */
export class SpaceReserve {
  readonly #path: string;
  readonly #now: () => number;
  #heldBytes = 0;
  #filling: Promise<void> | undefined;
  #nextTryMs = 0;

  constructor(directory: string, now: () => number = Date.now) {
    this.#path = join(directory, 'RESERVE');
    this.#now = now;
  }

  /** Take the room in the background, if it is not held and there is plenty. Asked often, it looks seldom. */
  refill(): void {
    if (this.#heldBytes === fullBytes || this.#filling !== undefined || this.#now() < this.#nextTryMs) return;
    this.#nextTryMs = this.#now() + betweenTriesMs;
    this.#filling = this.#fill()
      .catch(() => rm(this.#path, { force: true }).catch(() => undefined))
      .finally(() => (this.#filling = undefined));
  }

  /** Give a part of the room back, if there is any. */
  async release(): Promise<void> {
    await this.#filling;
    this.#nextTryMs = this.#now() + betweenTriesMs;
    this.#heldBytes = Math.max(0, this.#heldBytes - partBytes);
    if (this.#heldBytes > 0) await truncate(this.#path, this.#heldBytes);
    else await rm(this.#path, { force: true });
  }

  /** Nothing is written any more when it resolves; what is held stays for the next process. */
  async close(): Promise<void> {
    this.#nextTryMs = Infinity;
    await this.#filling;
  }

  async #fill(): Promise<void> {
    const held = await stat(this.#path).catch(() => undefined);
    if (held?.size === fullBytes) this.#heldBytes = fullBytes;
    const { bavail, bsize } = await statfs(dirname(this.#path));
    if (this.#heldBytes === fullBytes || bavail * bsize < amplyFree) return;
    this.#heldBytes = 0;
    await this.#write();
    this.#heldBytes = fullBytes;
  }

  async #write(): Promise<void> {
    const zeros = Buffer.alloc(64 << 10);
    const file = await open(this.#path, 'w', 0o600);
    try {
      for (let at = 0; at < fullBytes; at += zeros.length) await file.writeFile(zeros);
    } finally {
      await file.close();
    }
  }
}
