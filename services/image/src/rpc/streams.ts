import { closeSync } from 'node:fs';
import { cancelled, dataLoss, invalidArgument } from '@flotilla/errors';
import { image } from '@flotilla/proto';
import { FifoReader, openExchangeFifo, writeFifo } from '@flotilla/sys';
import type { UploadData } from '../load/archive-source.js';

/** A client stream whose first message is its options and whose others carry bytes, or that passes them through a FIFO. */
export interface UploadStream<S> extends Disposable {
  readonly start: S;
  /** What to answer first; undefined when the start named no FIFO. */
  readonly exchange: image.ExchangeUse | undefined;
  readonly data: UploadData;
}

type Frame<S> =
  | { readonly $case: 'start'; readonly value: S }
  | { readonly $case: 'data'; readonly value: Buffer }
  | { readonly $case: 'end'; readonly value: image.UploadEnd };

type Frames<S> = AsyncIterator<{ readonly frame?: Frame<S> | undefined }>;

/** @throws EngineError `invalidArgument` when the first message is no start. */
export async function readUpload<S extends { readonly exchangeName: string }>(
  requests: AsyncIterable<{ readonly frame?: Frame<S> | undefined }>,
  exchangeDir: string,
  signal: AbortSignal,
): Promise<UploadStream<S>> {
  const frames = requests[Symbol.asyncIterator]();
  const first = await frames.next();
  const frame = first.done === true ? undefined : first.value.frame;
  if (frame?.$case !== 'start') throw invalidArgument('the first message of an upload must be its start');
  const start = frame.value;
  const isNamed = start.exchangeName !== '';
  const fd = isNamed ? openExchangeFifo(exchangeDir, start.exchangeName, 'read') : undefined;
  if (fd === undefined) {
    const exchange = isNamed ? image.ExchangeUse.DECLINED : undefined;
    return { start, exchange, data: fromMessages(frames), [Symbol.dispose]: () => undefined };
  }
  const reader = new FifoReader(fd, signal);
  return {
    start,
    exchange: image.ExchangeUse.TAKEN,
    data: new FifoUpload(reader, frames),
    [Symbol.dispose]: () => reader.close(),
  };
}

async function* fromMessages<S>(frames: Frames<S>): AsyncGenerator<Buffer> {
  try {
    for (;;) {
      const next = await frames.next();
      if (next.done === true) return;
      if (next.value.frame?.$case === 'data') yield next.value.frame.value;
    }
  } finally {
    await frames.return?.();
  }
}

/** What comes through a FIFO is whole when the call says how much it was: a caller that died has closed it too. */
class FifoUpload<S> implements UploadData {
  readonly direct: NonNullable<UploadData['direct']>;
  readonly #reader: FifoReader;
  readonly #frames: Frames<S>;
  #received = 0;

  constructor(reader: FifoReader, frames: Frames<S>) {
    this.#reader = reader;
    this.#frames = frames;
    this.direct = { fd: reader.fd, took: (bytes) => (this.#received += bytes) };
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer> {
    for await (const chunk of this.#reader) {
      this.#received += chunk.length;
      yield chunk;
    }
    const next = await this.#frames.next();
    const frame = next.done === true ? undefined : next.value.frame;
    if (frame?.$case !== 'end') throw cancelled('the caller went away');
    const { sizeBytes } = frame.value;
    // Who was lent a part of known length has counted all of it.
    if (sizeBytes < BigInt(this.#received)) throw dataLoss('invalid archive: unexpected end of data');
    if (sizeBytes !== BigInt(this.#received)) throw dataLoss(`${this.#received} bytes came in place of ${sizeBytes}`);
  }
}

interface DownloadMessage {
  readonly data: Buffer;
  readonly exchange: image.ExchangeUse;
  readonly sizeBytes: bigint;
}

/**
 * Answers that bring `data` to the caller: through the FIFO it named, if that is there, else in the messages. Nothing is
 * opened before the first bytes are there, so that a failure before them is the call's.
 */
export async function* sendDownload(
  data: AsyncGenerator<Buffer>,
  exchangeDir: string,
  exchangeName: string,
  signal: AbortSignal,
): AsyncGenerator<DownloadMessage> {
  const message = { data: Buffer.alloc(0), exchange: image.ExchangeUse.UNSPECIFIED, sizeBytes: 0n };
  try {
    const first = await data.next();
    const fd = exchangeName === '' ? undefined : openExchangeFifo(exchangeDir, exchangeName, 'write');
    if (fd === undefined) {
      if (first.done !== true) yield { ...message, data: first.value };
      for await (const chunk of data) yield { ...message, data: chunk };
      return;
    }
    let isHandedOver = false;
    try {
      yield { ...message, exchange: image.ExchangeUse.TAKEN };
      isHandedOver = true;
    } finally {
      if (!isHandedOver) closeSync(fd);
    }
    const size = await writeFifo(fd, startingWith(first, data), signal);
    if (size === undefined) throw cancelled('the caller went away');
    yield { ...message, sizeBytes: BigInt(size) };
  } finally {
    await data.return(undefined);
  }
}

async function* startingWith<T>(first: IteratorResult<T, unknown>, rest: AsyncIterable<T>): AsyncGenerator<T> {
  if (first.done !== true) yield first.value;
  yield* rest;
}
