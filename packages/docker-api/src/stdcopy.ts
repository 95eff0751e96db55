import { dataLoss } from '@flotilla/errors';

/** The stream number in a frame's header. */
export const StdStream = { stdin: 0, stdout: 1, stderr: 2, systemError: 3 } as const;
export type StdStream = (typeof StdStream)[keyof typeof StdStream];

/** Bytes of a frame's header. */
export const FRAME_HEADER_BYTES = 8;

/** One whole frame in one buffer: stream, three zero bytes, big-endian length, then a copy of the payload. */
export function encodeFrame(stream: StdStream, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  frame.fill(0, 0, FRAME_HEADER_BYTES);
  frame[0] = stream;
  frame.writeUInt32BE(payload.length, 4);
  frame.set(payload, FRAME_HEADER_BYTES);
  return frame;
}

/** A frame, or a part of one: `payload` is a view of the input. */
export interface Frame {
  readonly stream: StdStream;
  readonly payload: Uint8Array;
}

/**
 * Splits a stream of multiplexed frames that arrives in chunks cut anywhere.
 * A payload is handed on as its pieces arrive, so a frame of any length needs no buffer of its length.
 * Format: moby/moby api/pkg/stdcopy.
 */
export class FrameDecoder {
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #remaining = 0;
  #stream: StdStream = StdStream.stdout;

  /**
   * The frames, or pieces of frames, in one chunk. Empty frames give nothing.
   * @throws EngineError `dataLoss` when a header names no stream.
   */
  *decode(chunk: Uint8Array): Generator<Frame> {
    let offset = 0;
    while (offset < chunk.length) {
      if (this.#remaining === 0) {
        const taken = Math.min(FRAME_HEADER_BYTES - this.#headerBytes, chunk.length - offset);
        this.#header.set(chunk.subarray(offset, offset + taken), this.#headerBytes);
        this.#headerBytes += taken;
        offset += taken;
        if (this.#headerBytes < FRAME_HEADER_BYTES) return;
        this.#headerBytes = 0;
        this.#stream = streamOf(this.#header);
        this.#remaining = this.#header.readUInt32BE(4);
        continue;
      }
      const payload = chunk.subarray(offset, offset + this.#remaining);
      offset += payload.length;
      this.#remaining -= payload.length;
      yield { stream: this.#stream, payload };
    }
  }

  /**
   * To be called at the end of the input.
   * @throws EngineError `dataLoss` when the input stopped inside a frame.
   */
  end(): void {
    if (this.#headerBytes > 0 || this.#remaining > 0) throw dataLoss('multiplexed stream ended inside a frame');
  }
}

function streamOf(header: Buffer): StdStream {
  const stream = header[0];
  switch (stream) {
    case StdStream.stdin:
    case StdStream.stdout:
    case StdStream.stderr:
    case StdStream.systemError:
      return stream;
    default:
      throw dataLoss(`Unrecognized input header: ${String(stream)}`);
  }
}

/** Split a whole multiplexed stream. @throws EngineError `dataLoss` when it is cut short or damaged. */
export async function* decodeFrames(input: AsyncIterable<Uint8Array>): AsyncGenerator<Frame> {
  const decoder = new FrameDecoder();
  for await (const chunk of input) yield* decoder.decode(chunk);
  decoder.end();
}
