import { join } from 'node:path';
import { Readable } from 'node:stream';
import { dataLoss, invalidArgument } from '@flotilla/errors';
import { image } from '@flotilla/proto';
import { FifoReader, openExchangeFifo, writeFifo } from '@flotilla/sys';

const { ExchangeUse } = image;

/** The image service as far as the gateway sends it archives and takes them: they come in messages or through FIFOs. */
export class FakeArchives {
  loaded = 0;
  /** An upload's parts after the first are not taken before this resolves. */
  hold: Promise<void> | undefined;
  failed = false;
  /** What uploads through a FIFO were told to be, in bytes. */
  readonly sizes: bigint[] = [];
  /** What there is to save. */
  saved = Buffer.alloc(0);
  /** A save breaks off after its bytes. */
  breaksOff = false;
  /** How many uploads and downloads went through a FIFO. */
  taken = 0;
  /** As if the exchange directory were another one. */
  declines = false;
  readonly #root: () => string;

  constructor(root: () => string) {
    this.#root = root;
  }

  async *load(
    requests: AsyncIterable<image.LoadImagesRequest>,
    signal: AbortSignal,
  ): AsyncGenerator<image.LoadImagesResponse> {
    try {
      yield* this.#receive(requests, signal);
    } catch (error) {
      this.failed = true;
      throw error;
    }
    yield {
      progress: [image.Progress.fromPartial({ stream: 'Loaded image: x:latest\n' })],
      revision: 0n,
      exchange: ExchangeUse.UNSPECIFIED,
    };
  }

  async *#receive(
    requests: AsyncIterable<image.LoadImagesRequest>,
    signal: AbortSignal,
  ): AsyncGenerator<image.LoadImagesResponse> {
    signal.addEventListener('abort', () => (this.failed = true));
    for await (const { frame } of requests) {
      if (frame?.$case === 'data') await this.#take(frame.value);
      if (frame?.$case === 'end') this.sizes.push(frame.value.sizeBytes);
      if (frame?.$case !== 'start' || frame.value.exchangeName === '') continue;
      const fd = this.#open(frame.value.exchangeName, 'read');
      const exchange = fd === undefined ? ExchangeUse.DECLINED : ExchangeUse.TAKEN;
      yield { progress: [], revision: 0n, exchange };
      if (fd !== undefined) for await (const chunk of new FifoReader(fd, signal)) await this.#take(chunk);
    }
  }

  async *save(
    { names, exchangeName }: image.SaveImagesRequest,
    signal: AbortSignal,
  ): AsyncGenerator<image.SaveImagesResponse> {
    const message = { data: Buffer.alloc(0), exchange: ExchangeUse.UNSPECIFIED, sizeBytes: 0n };
    if (names.includes('absent')) throw invalidArgument('No such image: absent');
    const fd = this.#open(exchangeName, 'write');
    if (fd === undefined) yield { ...message, data: this.saved };
    else {
      yield { ...message, exchange: ExchangeUse.TAKEN };
      const size = await writeFifo(fd, Readable.from([this.saved]), signal);
      if (!this.breaksOff) yield { ...message, sizeBytes: BigInt(size ?? 0) };
    }
    if (this.breaksOff) throw dataLoss('content is cut short');
  }

  #open(name: string, end: 'read' | 'write'): number | undefined {
    const fd = this.declines ? undefined : openExchangeFifo(join(this.#root(), 'exchange'), name, end);
    if (fd !== undefined) this.taken += 1;
    return fd;
  }

  async #take(chunk: Buffer): Promise<void> {
    this.loaded += chunk.length;
    await this.hold;
    if (chunk.subarray(0, 4).toString() === 'junk') throw invalidArgument('archive/tar: invalid tar header');
  }
}
