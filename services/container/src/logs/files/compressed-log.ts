import { closeSync, createReadStream, openSync, readSync, renameSync, rmSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { constants, createGunzip, createGzip } from 'node:zlib';
import type { LogFile } from './log-file.js';
import { listLogNames } from './rotated-names.js';

/** An empty gzip member with an extra field stands before the data: subfield "FL" with u64 inode and u64 size of what was compressed, little-endian. */
const HEADER_BYTES = 42;
const EXTRA_AT = 16;
const BLOCK_BYTES = 256 * 1024;

function headerOf(inode: bigint, size: number): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  // Magic, deflate, FEXTRA, no time, unknown system; 20 bytes of extra: "FL", 16 bytes.
  header.set([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 20, 0, 0x46, 0x4c, 16, 0]);
  header.writeBigUInt64LE(inode, EXTRA_AT);
  header.writeBigUInt64LE(BigInt(size), EXTRA_AT + 8);
  // An empty final block, CRC and length 0.
  header.set([3, 0], EXTRA_AT + 16);
  return header;
}

/** Open a rotated file that `compressRotated` made. Undefined when it is none. */
export function openCompressed(path: string): LogFile | undefined {
  const fd = openSync(path, 'r');
  const header = Buffer.alloc(HEADER_BYTES);
  const length = readSync(fd, header, 0, HEADER_BYTES, 0);
  const inode = header.readBigUInt64LE(EXTRA_AT);
  const size = Number(header.readBigUInt64LE(EXTRA_AT + 8));
  if (length === HEADER_BYTES && header.equals(headerOf(inode, size))) return new CompressedLogFile(fd, inode, size);
  closeSync(fd);
  return undefined;
}

/** Reads forward as it unpacks; going back begins anew. A damaged file ends where it is damaged. */
class CompressedLogFile implements LogFile {
  readonly inode: string;
  readonly isCompressed = true;
  readonly #fd: number;
  readonly #size: number;
  #unpacked: AsyncGenerator<Uint8Array> | undefined;
  #chunk: Uint8Array = new Uint8Array(0);
  #offset = 0;

  constructor(fd: number, inode: bigint, size: number) {
    this.#fd = fd;
    this.#size = size;
    this.inode = String(inode);
  }

  size(): number {
    return this.#size;
  }

  async read(buffer: Buffer, at: number, length: number, offset: number): Promise<number> {
    if (this.#unpacked === undefined || offset < this.#offset) await this.#restart();
    for (;;) {
      if (this.#chunk.length === 0) {
        const next = await this.#unpacked?.next();
        if (next === undefined || next.done === true) return 0;
        this.#chunk = next.value;
      }
      const skipped = Math.min(this.#chunk.length, offset - this.#offset);
      const taken = Math.min(length, this.#chunk.length - skipped);
      buffer.set(this.#chunk.subarray(skipped, skipped + taken), at);
      this.#offset += skipped + taken;
      this.#chunk = this.#chunk.subarray(skipped + taken);
      if (taken > 0) return taken;
    }
  }

  close(): void {
    void this.#unpacked?.return(undefined);
    closeSync(this.#fd);
  }

  async #restart(): Promise<void> {
    await this.#unpacked?.return(undefined);
    this.#unpacked = unpack(openSync(`/proc/self/fd/${this.#fd}`, 'r'));
    this.#chunk = new Uint8Array(0);
    this.#offset = 0;
  }
}

async function* unpack(fd: number): AsyncGenerator<Uint8Array> {
  const packed = createReadStream('', { fd });
  const unpacked = packed.pipe(createGunzip({ chunkSize: 128 * 1024 }));
  packed.on('error', (error) => unpacked.destroy(error));
  try {
    for await (const chunk of unpacked) yield chunk as Buffer;
  } catch {
    // What follows in newer files is worth more than an error.
  } finally {
    packed.destroy();
    unpacked.destroy();
  }
}

/**
 * Compress the rotated files of a log, oldest first, beside whatever else happens to them. A crash leaves the plain file, or both of which the
 * compressed one is removed. Where there is no room the file stays plain.
 */
export async function compressRotated(path: string, signal: AbortSignal): Promise<void> {
  const plain = listLogNames(path).filter(({ index, isCompressed }) => index > 0 && !isCompressed);
  for (const { path: source } of plain) {
    if (signal.aborted) return;
    await compressOne(path, source, signal);
  }
}

async function compressOne(path: string, source: string, signal: AbortSignal): Promise<void> {
  const target = `${path}.compressing`;
  // Handles, unlike streams on descriptors, are closed once and after what is under way.
  const from = await open(source, 'r').catch(() => undefined);
  if (from === undefined) return;
  let to: FileHandle | undefined;
  try {
    const { ino, size } = await from.stat({ bigint: true });
    if (signal.aborted) return;
    // At once: after an abort nothing is made in a directory that may be on its way out.
    // A file of its own: what an earlier one still writes is not to end up in it.
    rmSync(target, { force: true });
    closeSync(openSync(target, 'wx', 0o640));
    to = await open(target, 'r+');
    const output = to;
    await output.appendFile(headerOf(ino, Number(size)));
    const gzip = createGzip({ level: constants.Z_BEST_SPEED, chunkSize: 64 * 1024 });
    await pipeline(
      blocksOf(from),
      gzip,
      async (packed: AsyncIterable<Buffer>) => {
        for await (const chunk of packed) await output.appendFile(chunk);
      },
      { signal },
    );
    await output.sync();
    // It may have been moved, or be gone.
    const now = listLogNames(path).find((name) => !name.isCompressed && name.index > 0 && inodeOf(name.path) === ino);
    if (now === undefined || isAborted(signal)) {
      rmSync(target, { force: true });
      return;
    }
    renameSync(target, `${now.path}.gz`);
    rmSync(now.path);
  } catch {
    rmSync(target, { force: true });
  } finally {
    await from.close();
    await to?.close();
  }
}

async function* blocksOf(file: FileHandle): AsyncGenerator<Buffer> {
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(BLOCK_BYTES), 0, BLOCK_BYTES);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}

function inodeOf(path: string): bigint {
  return statSync(path, { bigint: true }).ino;
}

function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
