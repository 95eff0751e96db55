import { createHash } from 'node:crypto';
import { open, readFile, rm } from 'node:fs/promises';
import { posix } from 'node:path';
import { dataLoss, invalidArgument, isEngineError } from '@flotilla/errors';
import { maxConfigBytes, sha256Digest } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { extract } from 'tar-stream';
import type { Extract } from 'tar-stream';
import { compressionOf } from '@flotilla/layer-tar';
import type { ArrivingPart, LayerCompression, StagedLayer } from '../layers/index.js';
import type { ArchiveSource } from './archive-source.js';
import { EntryReader } from './entry-reader.js';
import { plainMember, tarBlockBytes } from './plain-member.js';
import type { PlainMember } from './plain-member.js';

/** A file of an archive, spooled to the disk. */
export interface ArchiveFile {
  readonly path: string;
  readonly size: number;
  readonly compression: LayerCompression;
  /** Known for compressed and small files, those that are kept as they are; empty for large plain ones. */
  readonly digest: Digest | '';
  /** For a plain layer that was unpacked while it came: then `path` is what it was compressed into. */
  readonly arrived?: ArrivedLayer | undefined;
}

/** A layer, or what was wrong with it: whether that matters is known when the whole archive is there. */
export type ArrivedLayer = { readonly layer: StagedLayer } | { readonly failure: unknown };

export interface ArchiveStore {
  /** Name for a new file. */
  readonly scratchPath: () => string;
  /** Unpack and compress a plain layer while it comes; undefined when that cannot be done now. */
  readonly stage: (
    source: AsyncIterable<Buffer> | ArrivingPart,
    targetPath: string,
  ) => Promise<StagedLayer | undefined>;
  /** Whether a layer of that DiffID need not be unpacked, since it is there already. */
  readonly isKnown: (diffId: Digest | '') => boolean;
}

const maxFiles = 20_000;
const maxLinks = 16;
const hashAlwaysBelow = 16 * 1024 * 1024;
/** Smaller files may be configurations or manifests that happen to look like a tar. */
const stageFrom = maxConfigBytes + 1;

/**
 * An archive of images on the disk, its files by their names inside. Names are looked up, never used as paths here.
 *
 * A large plain tar can only be a layer: it is unpacked while it comes, whatever the archive will say about it.
 * Disposing removes what nobody has taken.
 */
export class ImageArchive implements AsyncDisposable {
  readonly #files = new Map<string, ArchiveFile>();
  readonly #links = new Map<string, string>();
  readonly #store: ArchiveStore;
  readonly #spooled = new Set<string>();
  readonly #staged: StagedLayer[] = [];
  #receiving: Promise<void> = Promise.resolve();
  #entries = 0;

  constructor(store: ArchiveStore) {
    this.#store = store;
  }

  /** Spool a plain tar. @throws EngineError `dataLoss` for what is no tar or is cut short. */
  async receive(source: ArchiveSource): Promise<void> {
    const tar = extract();
    tar.on('entry', (header, stream, next) => {
      const settle = (error?: Error): void => next(error);
      if (++this.#entries > maxFiles) {
        settle(tooManyEntries());
        return;
      }
      this.#receiving = this.#receiveEntry(header, stream);
      this.#receiving.then(
        () => settle(),
        (error: unknown) => settle(error instanceof Error ? error : new Error(String(error))),
      );
    });
    try {
      await feed(this.#withoutLent(source), tar);
    } catch (error) {
      if (isEngineError(error)) throw error;
      // A file that cannot be written ends its entry, and so the archive: the first failure is the one to tell.
      const cause = await this.#receiving.then(
        () => error,
        (first: unknown) => first,
      );
      if (isEngineError(cause) || isSystemError(cause)) throw cause;
      throw dataLoss(`invalid archive: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }

  /** The archive but for the large plain layers that a thread reads by itself. */
  async *#withoutLent(source: ArchiveSource): AsyncGenerator<Buffer> {
    while (source.isDirect) {
      const member = plainMember(await source.peek(2 * tarBlockBytes));
      if (member === undefined) break;
      if (!(await this.#lendLayer(source, member))) yield* source.take(tarBlockBytes + member.paddedSize);
    }
    yield* source.take();
  }

  /** Whether the member is a layer, which has then been read. */
  async #lendLayer(source: ArchiveSource, { name, size, paddedSize }: PlainMember): Promise<boolean> {
    if (!this.#isLayer(name, size, (await source.peek(2 * tarBlockBytes)).subarray(tarBlockBytes))) return false;
    const path = this.#store.scratchPath();
    const lent = await source.lend(tarBlockBytes, size, async (part) => {
      this.#spooled.add(path);
      const arrived = await this.#stage(part, path);
      return arrived === undefined ? undefined : { arrived, readBytes: size };
    });
    if (lent === undefined) return false;
    for await (const _ of source.take(paddedSize - size));
    // What is bad may only have been cut short: no archive ends with a layer.
    const isCut = 'failure' in lent.arrived && (await source.peek(1)).length === 0;
    if (isCut) throw dataLoss('invalid archive: unexpected end of data');
    this.#files.set(cleanName(name), { path, size, compression: 'none', digest: '', arrived: lent.arrived });
    if (++this.#entries > maxFiles) throw tooManyEntries();
    return true;
  }

  #isLayer(name: string, size: number, head: Buffer): boolean {
    return size >= stageFrom && isTar(head) && !this.#store.isKnown(diffIdIn(name));
  }

  async #receiveEntry(
    header: {
      name: string;
      type?: string | null | undefined;
      linkname?: string | null | undefined;
      size?: number | undefined;
    },
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
    const entry = new EntryReader(stream as AsyncIterable<Buffer>);
    const head = await entry.peek(tarBlockBytes);
    const isLayer = this.#isLayer(name, header.size ?? 0, head);
    const file =
      (isLayer ? await this.#stageEntry(entry, header.size ?? 0) : undefined) ?? (await this.#spoolEntry(entry, head));
    this.#files.set(name, file);
  }

  async #stageEntry(entry: EntryReader, size: number): Promise<ArchiveFile | undefined> {
    const path = this.#store.scratchPath();
    this.#spooled.add(path);
    const arrived = await this.#stage(entry.chunks(), path);
    if (arrived === undefined) return undefined;
    await entry.drain();
    return { path, size, compression: 'none', digest: '', arrived };
  }

  async #stage(source: AsyncIterable<Buffer> | ArrivingPart, path: string): Promise<ArrivedLayer | undefined> {
    try {
      const layer = await this.#store.stage(source, path);
      if (layer === undefined) return undefined;
      this.#staged.push(layer);
      return { layer };
    } catch (failure) {
      // What is no layer may be no part of an image either; anything else ends the load.
      if (!isEngineError(failure, 'dataLoss') && !isEngineError(failure, 'invalidArgument')) throw failure;
      return { failure };
    }
  }

  async #spoolEntry(entry: EntryReader, head: Buffer): Promise<ArchiveFile> {
    const path = this.#store.scratchPath();
    this.#spooled.add(path);
    const file = await open(path, 'wx', 0o600);
    const hash = createHash('sha256');
    let size = 0;
    const compression = compressionOf(head);
    try {
      for await (const chunk of entry.chunks()) {
        if (compression !== 'none' || size < hashAlwaysBelow) hash.update(chunk);
        let done = 0;
        while (done < chunk.length) done += (await file.write(chunk, done, chunk.length - done)).bytesWritten;
        size += chunk.length;
      }
    } finally {
      await file.close();
    }
    const isWhole = compression !== 'none' || size <= hashAlwaysBelow;
    return { path, size, compression, digest: isWhole ? sha256Digest(hash.digest('hex')) : '' };
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
    if (file.size > limit || file.arrived !== undefined)
      throw invalidArgument(`invalid archive: ${name.slice(0, 200)} is larger than ${limit} bytes`);
    return readFile(file.path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#receiving.catch(() => undefined); // whoever failed has been told why
    for (const layer of this.#staged) await layer[Symbol.asyncDispose]();
    for (const path of this.#spooled) await rm(path, { force: true });
  }
}

/** Relative, without `.` and `..`. */
function cleanName(name: string): string {
  return posix.normalize(`/${name}`).slice(1).replace(/\/$/, '');
}

/** The digest by which most programs call the layers in an archive: `<hex>.tar`, `blobs/sha256/<hex>`; empty for other names. */
function diffIdIn(name: string): Digest | '' {
  const hex = /(?:^|\/)([0-9a-f]{64})(?:\.tar)?$/.exec(name)?.[1];
  return hex === undefined ? '' : sha256Digest(hex);
}

function isTar(head: Buffer): boolean {
  return head.length >= tarBlockBytes && head.subarray(257, 262).toString('latin1') === 'ustar';
}

const tooManyEntries = () => invalidArgument(`invalid archive: more than ${maxFiles} entries`);

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
