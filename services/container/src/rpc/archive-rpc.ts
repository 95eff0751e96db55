import { invalidArgument } from '@flotilla/errors';
import { decompressed } from '@flotilla/layer-tar';
import type { container } from '@flotilla/proto';
import { clientStream, type Implementation, serverStream, unary } from '@flotilla/rpc';
import type { PathInfo } from '../archive/archive-jobs.js';
import type { Archiver } from '../containers/archiver.js';
import { asBuffer } from './as-buffer.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

/** `docker cp` both ways. */
export const archiveRpc = (archiver: Archiver): Handlers => ({
  statPath: unary(async ({ name, path }: container.StatPathRequest, { signal }) => ({
    stat: statOf(await archiver.stat(name, path, signal)),
  })),

  readArchive: serverStream(async function* ({ name, path }: container.ReadArchiveRequest, { signal }) {
    for await (const part of archiver.read(name, path, signal)) {
      if (Buffer.isBuffer(part)) yield { frame: { $case: 'data' as const, value: part } };
      else yield { frame: { $case: 'stat' as const, value: statOf(part) } };
    }
  }),

  writeArchive: clientStream(async (requests: AsyncIterable<container.WriteArchiveRequest>, { signal }) => {
    const input = requests[Symbol.asyncIterator]();
    const first = await input.next();
    const frame = first.done === true ? undefined : first.value.frame;
    if (frame?.$case !== 'start') throw invalidArgument('the first message of an archive must be its start');
    await archiver.write(frame.value, decompressed(dataOf(input)), signal);
    return {};
  }),
});

async function* dataOf(input: AsyncIterator<container.WriteArchiveRequest>): AsyncGenerator<Buffer> {
  for (;;) {
    const next = await input.next();
    if (next.done === true) return;
    const { frame } = next.value;
    if (frame?.$case === 'data') yield asBuffer(frame.value);
  }
}

function statOf({ name, size, mode, mtime, linkTarget }: PathInfo): container.PathStat {
  return {
    name: textOf(name),
    sizeBytes: BigInt(size),
    mode,
    modifiedAt: { seconds: BigInt(mtime.seconds), nanos: mtime.nanoseconds },
    linkTarget: textOf(linkTarget),
  };
}

/** Paths are bytes, one per character. */
const textOf = (path: string): string => Buffer.from(path, 'latin1').toString();
