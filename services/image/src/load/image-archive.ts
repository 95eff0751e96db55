import { createHash } from 'node:crypto';
import { open, readFile, rm } from 'node:fs/promises';
import { posix } from 'node:path';
import { dataLoss, invalidArgument, isEngineError } from '@flotilla/errors';
import { maxConfigBytes, sha256Digest } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { extract } from 'tar-stream';
import type { Extract } from 'tar-stream';
import type { LayerCompression } from '../layers/index.js';
import { compressionOf } from '../pull/blob-compression.js';

/** A file of an archive, spooled to the disk. */
export interface ArchiveFile {
  readonly path: string;
  readonly size: number;
  readonly compression: LayerCompression;
  /** Known for compressed and small files, those that are kept as they are; empty for large plain ones. */
  readonly digest: Digest | '';
}

const maxFiles = 20_000;
const maxLinks = 16;
const hashAlwaysBelow = 16 * 1024 * 1024;

/**
 * An archive of images on the disk, its files by their names inside. Names are looked up, never used as paths here.
 * Disposing removes what nobody has taken.
 */
export class ImageArchive implements AsyncDisposable {
  readonly #files = new Map<string, ArchiveFile>();
  readonly #links = new Map<string, string>();
  readonly #scratchPath: () => string;
  readonly #spooled = new Set<string>();

  constructor(scratchPath: () => string) {
    this.#scratchPath = scratchPath;
  }

  /** Spool a plain tar. @throws EngineError `dataLoss` for what is no tar or is cut short. */
  async receive(source: AsyncIterable<Buffer>): Promise<void> {
    const tar = extract();
    let entries = 0;
    let receiving = Promise.resolve();
    tar.on('entry', (header, stream, next) => {
      entries += 1;
      const settle = (error?: Error): void => next(error);
      if (entries > maxFiles) {
        settle(invalidArgument(`invalid archive: more than ${maxFiles} entries`));
        return;
      }
      receiving = this.#receiveEntry(header, stream);
      receiving.then(
        () => settle(),
        (error: unknown) => settle(error instanceof Error ? error : new Error(String(error))),
      );
    });
    try {
      await feed(source, tar);
    } catch (error) {
      if (isEngineError(error)) throw error;
      // A file that cannot be written ends its entry, and so the archive: the first failure is the one to tell.
      const cause = await receiving.then(
        () => error,
        (first: unknown) => first,
      );
      if (isEngineError(cause) || isSystemError(cause)) throw cause;
      throw dataLoss(`invalid archive: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }

  async #receiveEntry(
    header: { name: string; type?: string | null | undefined; linkname?: string | null | undefined },
    stream: AsyncIterable<unknown> & { resume(): unknown },
  ): Promise<void> {
    const name = cleanName(header.name);
    if ((header.type === 'symlink' || header.type === 'link') && header.linkname != null) {
      const base = header.type === 'symlink' ? posix.dirname(name) : '';
      this.#links.set(name, cleanName(posix.join(base, header.linkname)));
    }
    if (header.type !== 'file' && header.type !== 'contiguous-file') {
      stream.resume();
      return;
    }
    const path = this.#scratchPath();
    this.#spooled.add(path);
    const file = await open(path, 'wx', 0o600);
    const hash = createHash('sha256');
    let size = 0;
    let compression: LayerCompression = 'none';
    try {
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        if (size === 0) compression = compressionOf(chunk);
        if (compression !== 'none' || size < hashAlwaysBelow) hash.update(chunk);
        let done = 0;
        while (done < chunk.length) done += (await file.write(chunk, done, chunk.length - done)).bytesWritten;
        size += chunk.length;
      }
    } finally {
      await file.close();
    }
    const isWhole = compression !== 'none' || size <= hashAlwaysBelow;
    this.#files.set(name, { path, size, compression, digest: isWhole ? sha256Digest(hash.digest('hex')) : '' });
  }

  /** The file of that name, symbolic links followed; undefined if there is none. */
  find(name: string): ArchiveFile | undefined {
    let current = cleanName(name);
    for (let hop = 0; hop < maxLinks; hop += 1) {
      const file = this.#files.get(current);
      if (file !== undefined) return file;
      const target = this.#links.get(current);
      if (target === undefined) return undefined;
      current = target;
    }
    return undefined;
  }

  /** A small file. @throws EngineError `invalidArgument` if it is missing or large. */
  async read(name: string, limit = maxConfigBytes): Promise<Buffer> {
    const file = this.find(name);
    if (file === undefined)
      throw invalidArgument(`invalid archive: does not contain ${JSON.stringify(name.slice(0, 200))}`);
    if (file.size > limit)
      throw invalidArgument(`invalid archive: ${name.slice(0, 200)} is larger than ${limit} bytes`);
    return readFile(file.path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const path of this.#spooled) await rm(path, { force: true });
  }
}

/** Relative, without `.` and `..`. */
function cleanName(name: string): string {
  return posix.normalize(`/${name}`).slice(1).replace(/\/$/, '');
}

function isSystemError(error: unknown): boolean {
  return error instanceof Error && 'syscall' in error;
}

/** Write everything and wait for its end. Not a pipeline: tar-stream's streams are not Node's, and a failure must come from one place. */
async function feed(source: AsyncIterable<Buffer>, tar: Extract): Promise<void> {
  const finished = new Promise<void>((resolve, reject) => {
    tar.on('finish', () => resolve());
    tar.on('error', reject);
    tar.on('close', () => reject(new Error('closed early')));
  });
  finished.catch(() => undefined);
  try {
    for await (const chunk of source) {
      if (tar.write(chunk)) continue;
      await Promise.race([new Promise<void>((resolve) => tar.once('drain', () => resolve())), finished]);
    }
    tar.end(undefined);
    await finished;
  } finally {
    tar.destroy();
  }
}
