import { dataLoss } from '@flotilla/errors';
import { image } from '@flotilla/proto';
import { ExchangeFifo, FifoReader, writeFifo } from '@flotilla/sys';
import { inLargeParts } from './large-parts.js';

type ExchangeUse = image.ExchangeUse;

/** Frames of an upload after its start. */
type UploadFrame =
  { readonly $case: 'data'; readonly value: Buffer } | { readonly $case: 'end'; readonly value: image.UploadEnd };

/**
 * The bytes of an archive on their way to the image service: through a FIFO in the exchange directory if both have that, else
 * in the messages of the call.
 */
export class ArchiveUpload implements Disposable {
  readonly #source: AsyncIterable<Buffer>;
  readonly #fifo: ExchangeFifo | undefined;
  readonly #over = new AbortController();
  readonly #answered: Promise<ExchangeUse>;
  #answer!: (use: ExchangeUse) => void;

  constructor(exchangeDir: string, source: AsyncIterable<Buffer>) {
    this.#source = source;
    this.#fifo = ExchangeFifo.make(exchangeDir, 'write');
    this.#answered = new Promise((resolve) => (this.#answer = resolve));
  }

  /** Of the FIFO, for the start; empty for none. */
  get exchangeName(): string {
    return this.#fifo?.name ?? '';
  }

  /** What follows the start. */
  async *frames(): AsyncGenerator<UploadFrame> {
    if (this.#fifo !== undefined && (await this.#answered) === image.ExchangeUse.TAKEN) {
      const size = await writeFifo(this.#fifo.take(), this.#source, this.#over.signal);
      if (size !== undefined) yield { $case: 'end', value: { sizeBytes: BigInt(size) } };
      // The other side has left: its answer says why.
      else await new Promise(() => undefined);
      return;
    }
    for await (const value of inLargeParts(this.#source)) yield { $case: 'data', value };
  }

  /** The answers of the call, which must be read to the end or left. */
  async *answers<A extends { readonly exchange: ExchangeUse }>(answers: AsyncIterable<A>): AsyncGenerator<A> {
    try {
      for await (const answer of answers) {
        if (answer.exchange === image.ExchangeUse.UNSPECIFIED) yield answer;
        else this.#answer(answer.exchange);
      }
    } finally {
      this[Symbol.dispose]();
    }
  }

  [Symbol.dispose](): void {
    this.#over.abort(new Error('the call has ended'));
    this.#fifo?.[Symbol.dispose]();
  }
}

/** An answer that brings bytes, or says that they come through a FIFO. */
interface DownloadMessage {
  readonly data: Uint8Array;
  readonly exchange: ExchangeUse;
  readonly sizeBytes: bigint;
}

/**
 * The bytes that the image service sends, through a FIFO in the exchange directory if both have that.
 *
 * @param begin makes the call, with the name of the FIFO or an empty one
 */
export async function* archiveDownload(
  exchangeDir: string,
  signal: AbortSignal,
  begin: (exchangeName: string) => AsyncGenerator<DownloadMessage, void, undefined>,
): AsyncGenerator<Uint8Array> {
  using fifo = ExchangeFifo.make(exchangeDir, 'read');
  const messages = begin(fifo?.name ?? '');
  try {
    const first = await messages.next();
    if (first.done === true) return;
    if (fifo === undefined || first.value.exchange !== image.ExchangeUse.TAKEN) {
      yield first.value.data;
      for await (const { data } of messages) yield data;
      return;
    }
    let received = 0;
    for await (const chunk of new FifoReader(fifo.take(), signal)) {
      received += chunk.length;
      yield chunk;
    }
    // Only the call says whether those were all.
    let size: bigint | undefined;
    for await (const { sizeBytes } of messages) size = sizeBytes;
    if (size !== BigInt(received)) throw dataLoss(`${received} bytes came in place of ${size ?? 0n}`);
  } finally {
    await messages.return();
  }
}
