/**
 * A place in the output of a container: behind all entries up to a place of its log, and behind so many bytes of each stream that are in no entry
 * up to there. By it an attached client goes on after a restart of this service, without a gap and without a byte twice.
 */
export interface OutputPosition {
  /** As `LogBatch.position`. */
  readonly log: string;
  readonly stdout: number;
  readonly stderr: number;
}

export function outputPositionText({ log, stdout, stderr }: OutputPosition): string {
  return `${log}/${stdout}/${stderr}`;
}

/** What is not understood is the beginning. */
export function parseOutputPosition(text: string): OutputPosition {
  const [log = '', stdout = '0', stderr = '0'] = text.split('/');
  return { log, stdout: Number(stdout) || 0, stderr: Number(stderr) || 0 };
}

const FRAME_HEADER_BYTES = 8;

/** Takes from output, as it comes, what a client has already. */
export class OutputSkip {
  readonly #isTerminal: boolean;
  readonly #left: [stdout: number, stderr: number];

  constructor({ stdout, stderr }: Pick<OutputPosition, 'stdout' | 'stderr'>, isTerminal: boolean) {
    this.#isTerminal = isTerminal;
    this.#left = [stdout, stderr];
  }

  /** What is still to be taken away. */
  get left(): Pick<OutputPosition, 'stdout' | 'stderr'> {
    return { stdout: this.#left[0], stderr: this.#left[1] };
  }

  /** Whole frames, or raw bytes of a terminal. */
  apply(bytes: Uint8Array): Uint8Array {
    if (this.#left[0] === 0 && this.#left[1] === 0) return bytes;
    if (this.#isTerminal) return bytes.subarray(this.#take(1, bytes.length));
    const frames = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const kept: Buffer[] = [];
    for (let at = 0; at + FRAME_HEADER_BYTES <= frames.length;) {
      const length = frames.readUInt32BE(at + 4);
      const start = at + FRAME_HEADER_BYTES;
      const skipped = this.#take(frames[at] === 2 ? 2 : 1, length);
      if (skipped < length) {
        const header = Buffer.from(frames.subarray(at, start));
        header.writeUInt32BE(length - skipped, 4);
        kept.push(header, frames.subarray(start + skipped, start + length));
      }
      at = start + length;
    }
    return Buffer.concat(kept);
  }

  #take(stream: 1 | 2, length: number): number {
    const skipped = Math.min(this.#left[stream - 1] ?? 0, length);
    this.#left[stream - 1] = (this.#left[stream - 1] ?? 0) - skipped;
    return skipped;
  }
}
