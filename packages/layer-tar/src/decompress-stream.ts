import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { dataLoss, internal } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';
import { compressionOf } from './compression.js';

const magics: readonly { readonly bytes: readonly number[]; readonly command: readonly [string, ...string[]] }[] = [
  { bytes: [0xfd, 0x37, 0x7a, 0x58], command: ['xz', '-dc'] },
  { bytes: [0x42, 0x5a, 0x68], command: ['bzip2', '-dc'] },
];

/** Whether {@link decompressed} changes the bytes that begin so; four bytes are enough. */
export function isCompressed(head: Uint8Array): boolean {
  return compressionOf(head) !== 'none' || magics.some(({ bytes }) => bytes.every((byte, at) => head[at] === byte));
}

/**
 * The plain bytes of a stream that may be compressed (gzip, zstd, xz, bzip2), whatever it was called.
 *
 * @throws EngineError `dataLoss` for damaged or truncated input, `internal` when a program is missing.
 */
export async function* decompressed(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const { head, rest } = await peek(source);
  const compression = compressionOf(head);
  if (compression === 'gzip') yield* gunzipped(rest);
  else if (compression === 'zstd') yield* throughProgram(['zstd', '-dcq'], rest);
  else {
    const known = magics.find(({ bytes }) => bytes.every((byte, at) => head[at] === byte));
    if (known === undefined) yield* rest;
    else yield* throughProgram(known.command, rest);
  }
}

/** At least four bytes of the stream (if it has them) and the whole stream. */
async function peek(source: AsyncIterable<Buffer>): Promise<{ head: Buffer; rest: AsyncGenerator<Buffer> }> {
  const iterator = source[Symbol.asyncIterator]();
  let head = Buffer.alloc(0);
  while (head.length < 4) {
    const next = await iterator.next();
    if (next.done === true) break;
    head = Buffer.concat([head, next.value]);
  }
  async function* rest(): AsyncGenerator<Buffer> {
    try {
      if (head.length > 0) yield head;
      for (;;) {
        const next = await iterator.next();
        if (next.done === true) return;
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  return { head, rest: rest() };
}

async function* gunzipped(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const gunzip = createGunzip({ chunkSize: 256 * 1024 });
  // It may still fail while nobody reads it any more.
  gunzip.on('error', () => undefined);
  const feeding = pipeline(Readable.from(source), gunzip);
  feeding.catch(() => undefined);
  try {
    for await (const chunk of gunzip) yield chunk as Buffer;
  } catch (error) {
    if (isCodecError(error)) throw dataLoss('invalid or truncated compressed data', { cause: error });
    // The source's failure, when that is what ended it.
    await feeding;
    throw error;
  }
}

function isCodecError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('Z_');
}

async function* throughProgram(
  [program, ...argv]: readonly [string, ...string[]],
  source: AsyncIterable<Buffer>,
): AsyncGenerator<Buffer> {
  const child = spawn(program, argv, { stdio: ['pipe', 'pipe', 'ignore'] });
  const exited = once(child, 'exit').then(
    ([code]) => code as number | null,
    (cause: unknown) => {
      throw internal(hasCode(cause, 'ENOENT') ? `${program}: program not found: install it` : `${program} failed`, {
        cause,
      });
    },
  );
  exited.catch(() => undefined);
  const feeding = pipeline(Readable.from(source), child.stdin).catch((error: unknown) => {
    // A program that gave up has its own word below.
    if (!hasCode(error, 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE')) throw error;
  });
  feeding.catch(() => undefined);
  try {
    for await (const chunk of child.stdout) yield chunk as Buffer;
    await feeding;
    if ((await exited) !== 0) throw dataLoss('invalid or truncated compressed data');
  } finally {
    child.kill('SIGKILL');
  }
}
