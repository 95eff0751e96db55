import { invalidArgument } from '@flotilla/errors';

/** A client stream whose first message is its options and whose others carry bytes. */
export interface UploadStream<S> {
  readonly start: S;
  readonly data: AsyncGenerator<Buffer>;
}

type Frame<S> = { readonly $case: 'start'; readonly value: S } | { readonly $case: 'data'; readonly value: Buffer };

/** @throws EngineError `invalidArgument` when the first message is no start. */
export async function readUpload<S>(
  requests: AsyncIterable<{ readonly frame?: Frame<S> | undefined }>,
): Promise<UploadStream<S>> {
  const iterator = requests[Symbol.asyncIterator]();
  const first = await iterator.next();
  const frame = first.done === true ? undefined : first.value.frame;
  if (frame?.$case !== 'start') throw invalidArgument('the first message of an upload must be its start');
  async function* data(): AsyncGenerator<Buffer> {
    try {
      for (;;) {
        const next = await iterator.next();
        if (next.done === true) return;
        if (next.value.frame?.$case === 'data') yield next.value.frame.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  return { start: frame.value, data: data() };
}
