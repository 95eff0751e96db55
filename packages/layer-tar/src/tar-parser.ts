import { dataLoss } from '@flotilla/errors';
import type { PaxRecord } from './pax.js';
import { parsePaxRecords } from './pax.js';
import { DataSparseMap, OldGnuSparse, checkFragments, paxSparse } from './sparse-map.js';
import type { SparseFragment, TarEntry, TarEntryType, TarSink } from './tar-entry.js';
import { invalidHeader, parseCount, parseDecimal, parseNumber, parsePaxTime, userId } from './tar-numbers.js';

const blockBytes = 512;
/** As Go's maxSpecialFileSize: no honest name or record is longer. */
const maxMetadataBytes = 1 << 20;

const types: Record<string, TarEntryType> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

/** What the next bytes of the input are. */
type Expecting = 'header' | 'gnuSparseBlock' | 'sparseMapBlock' | 'metadata' | 'content' | 'padding' | 'nothing';

/**
 * A strict tar parser that is fed pieces of any size.
 *
 * Reads ustar, old GNU and PAX: base-256 numbers, long names, binary attributes, and sparse files in the old GNU form
 * and the PAX forms 0.0, 0.1 and 1.0. Global PAX headers are checked and ignored, as Docker does. What follows the two
 * closing zero blocks is ignored. Nothing is decoded: see `TarEntry`. Memory use does not grow with the input.
 *
 * @throws EngineError `invalidArgument` for what is no tar; `dataLoss` from `end()` for one that is cut short. An
 *   archive cut exactly between two members cannot be told from one without closing blocks, and is accepted: only a
 *   digest finds that.
 */
export class TarParser {
  readonly #sink: TarSink;
  #expecting: Expecting = 'header';
  readonly #block = Buffer.alloc(blockBytes);
  #blockFill = 0;

  /** Bytes left of the metadata, content or padding. */
  #left = 0;
  #padding = 0;
  #metadata = Buffer.alloc(0);
  #metadataType = '';

  #pax: PaxRecord[] | undefined;
  #longName: string | undefined;
  #longLink: string | undefined;

  #entry: TarEntry | undefined;
  #oldSparse: OldGnuSparse | undefined;
  #sparseMap: DataSparseMap | undefined;
  #fragments: SparseFragment[] | undefined;
  #fragment = 0;
  /** Position in the file; within the current fragment for a sparse one. */
  #position = 0;
  #sawZeroBlock = false;

  constructor(sink: TarSink) {
    this.#sink = sink;
  }

  /** Whether the closing blocks have been seen; further input is ignored. */
  get ended(): boolean {
    return this.#expecting === 'nothing';
  }

  write(chunk: Buffer): void {
    let position = 0;
    while (position < chunk.length) {
      switch (this.#expecting) {
        case 'nothing':
          return;
        case 'header':
        case 'gnuSparseBlock':
        case 'sparseMapBlock':
          position = this.#takeBlock(chunk, position);
          break;
        case 'metadata':
        case 'content':
        case 'padding': {
          const count = Math.min(this.#left, chunk.length - position);
          this.#left -= count;
          const end = position + count;
          if (this.#expecting === 'metadata') {
            chunk.copy(this.#metadata, this.#metadata.length - this.#left - count, position, end);
          } else if (this.#expecting === 'content') this.#content(chunk.subarray(position, end));
          position = end;
          if (this.#left === 0) this.#endPart();
        }
      }
    }
  }

  /** The input has ended: @throws EngineError `dataLoss` in the middle of a member */
  end(): void {
    if (this.#expecting === 'nothing') return;
    const betweenMembers = this.#expecting === 'header' && this.#blockFill === 0;
    const pending = this.#pax !== undefined || this.#longName !== undefined || this.#longLink !== undefined;
    if (!betweenMembers || pending) throw dataLoss('archive/tar: unexpected EOF');
  }

  #takeBlock(chunk: Buffer, position: number): number {
    if (this.#blockFill === 0 && chunk.length - position >= blockBytes) {
      this.#takeWholeBlock(chunk, position);
      return position + blockBytes;
    }
    const count = Math.min(blockBytes - this.#blockFill, chunk.length - position);
    chunk.copy(this.#block, this.#blockFill, position, position + count);
    this.#blockFill += count;
    if (this.#blockFill === blockBytes) {
      this.#blockFill = 0;
      this.#takeWholeBlock(this.#block, 0);
    }
    return position + count;
  }

  #takeWholeBlock(buffer: Buffer, offset: number): void {
    if (this.#expecting === 'header') {
      this.#header(buffer, offset);
      return;
    }
    const block = buffer.subarray(offset, offset + blockBytes);
    if (this.#expecting === 'gnuSparseBlock') {
      this.#oldSparse?.extend(block);
      this.#startOldSparse();
    } else this.#addToSparseMap(block);
  }

  /** Metadata, content or padding is complete. */
  #endPart(): void {
    const part = this.#expecting;
    if (part === 'metadata') this.#endMetadata();
    else if (part === 'content') this.#endContent();
    if (part !== 'padding' && this.#padding > 0) {
      this.#left = this.#padding;
      this.#padding = 0;
      this.#expecting = 'padding';
    } else this.#expecting = 'header';
  }

  #header(block: Buffer, at: number): void {
    const checksum = unsignedChecksum(block, at);
    if (checksum === zeroChecksum && isZero(block, at)) {
      if (this.#sawZeroBlock) this.#expecting = 'nothing';
      this.#sawZeroBlock = true;
      return;
    }
    if (this.#sawZeroBlock) throw invalidHeader('data after a closing block');
    const stored = parseNumber(block, at + 148, 8);
    if (stored !== checksum && stored !== signedChecksum(block, at)) throw invalidHeader('wrong checksum');
    const size = parseNumber(block, at + 124, 12);
    if (size < 0) throw invalidHeader('negative size');
    const flag = String.fromCharCode(block[at + 156] ?? 0);
    if (flag === 'x' || flag === 'g' || flag === 'L' || flag === 'K') this.#startMetadata(flag, size);
    else this.#startEntry(block, at, flag, size);
  }

  #startMetadata(flag: string, size: number): void {
    if (size > maxMetadataBytes) throw invalidHeader('header field too long');
    this.#metadataType = flag;
    this.#metadata = Buffer.alloc(size);
    this.#left = size;
    this.#padding = paddingOf(size);
    this.#expecting = 'metadata';
    if (size === 0) this.#endPart();
  }

  #endMetadata(): void {
    const body = this.#metadata;
    this.#metadata = Buffer.alloc(0);
    switch (this.#metadataType) {
      case 'x':
        this.#pax = parsePaxRecords(body);
        break;
      case 'g':
        parsePaxRecords(body);
        break;
      case 'L':
        this.#longName = text(body, 0, body.length);
        break;
      default:
        this.#longLink = text(body, 0, body.length);
    }
  }

  #startEntry(block: Buffer, at: number, flag: string, headerSize: number): void {
    const type = types[flag];
    if (type === undefined) throw invalidHeader(`unhandled tar header type ${JSON.stringify(flag)}`);
    const isPosix = block.toString('latin1', at + 257, at + 263) === 'ustar\0';
    const isDevice = type === 'char' || type === 'block';
    let name = text(block, at, 100);
    if (isPosix && block[at + 345] !== 0) name = `${text(block, at + 345, 155)}/${name}`;
    const entry: TarEntry = {
      name,
      type,
      mode: parseNumber(block, at + 100, 8) & 0o7777,
      uid: userId(parseNumber(block, at + 108, 8)),
      gid: userId(parseNumber(block, at + 116, 8)),
      size: headerSize,
      mtime: { seconds: parseNumber(block, at + 136, 12), nanoseconds: 0 },
      linkname: type === 'symlink' || type === 'hardlink' ? text(block, at + 157, 100) : '',
      devmajor: isDevice ? parseNumber(block, at + 329, 8) : 0,
      devminor: isDevice ? parseNumber(block, at + 337, 8) : 0,
      xattrs: [],
    };
    const pax = this.#pax ?? [];
    for (const [key, value] of pax) applyPax(entry, key, value);
    if (this.#longName !== undefined) entry.name = this.#longName;
    if (this.#longLink !== undefined && entry.linkname !== '') entry.linkname = this.#longLink;
    this.#pax = this.#longName = this.#longLink = undefined;
    // The first tars had no type for directories.
    if (flag === '\0' && entry.name.endsWith('/')) entry.type = 'directory';
    // The size that a header-only member states is not followed by data, whatever it says.
    const stored = entry.type === 'file' ? entry.size : 0;
    entry.size = stored;
    this.#entry = entry;
    this.#left = stored;
    this.#padding = paddingOf(stored);
    if (flag === 'S') {
      this.#oldSparse = new OldGnuSparse(block, at);
      this.#startOldSparse();
      return;
    }
    const sparse = entry.type === 'file' ? paxSparse(pax) : undefined;
    if (sparse === undefined) {
      this.#startContent(undefined);
      return;
    }
    entry.name = sparse.name ?? entry.name;
    entry.size = sparse.size;
    if (sparse.fragments !== undefined) this.#startContent(checkFragments(sparse.fragments, sparse.size, stored));
    else {
      this.#sparseMap = new DataSparseMap();
      this.#expecting = 'sparseMapBlock';
      if (stored < blockBytes) throw invalidHeader('sparse file without map');
    }
  }

  #startOldSparse(): void {
    const sparse = this.#oldSparse;
    const entry = this.#entry;
    if (sparse === undefined || entry === undefined) return;
    if (sparse.more) {
      this.#expecting = 'gnuSparseBlock';
      return;
    }
    this.#oldSparse = undefined;
    entry.size = sparse.size;
    this.#startContent(checkFragments(sparse.fragments, sparse.size, this.#left));
  }

  #addToSparseMap(block: Buffer): void {
    const fragments = this.#sparseMap?.add(block);
    this.#left -= blockBytes;
    if (fragments === undefined) {
      if (this.#left < blockBytes) throw invalidHeader('sparse map cut short');
      return;
    }
    if (this.#left < 0) throw invalidHeader('sparse map cut short');
    this.#sparseMap = undefined;
    this.#startContent(checkFragments(fragments, this.#entry?.size ?? 0, this.#left));
  }

  /** The entry is known in full; `#left` bytes of content follow. */
  #startContent(fragments: SparseFragment[] | undefined): void {
    const entry = this.#entry;
    if (entry === undefined) return;
    if (fragments !== undefined) entry.sparse = fragments;
    this.#fragments = fragments;
    this.#fragment = 0;
    this.#position = 0;
    this.#expecting = 'content';
    this.#sink.entry(entry);
    if (this.#left === 0) this.#endPart();
  }

  #content(bytes: Buffer): void {
    if (this.#fragments === undefined) {
      this.#sink.data(bytes, this.#position);
      this.#position += bytes.length;
      return;
    }
    let from = 0;
    while (from < bytes.length) {
      const fragment = this.#fragments[this.#fragment];
      if (fragment === undefined) throw invalidHeader('data beyond the sparse map');
      const count = Math.min(bytes.length - from, fragment.length - this.#position);
      this.#sink.data(bytes.subarray(from, from + count), fragment.offset + this.#position);
      from += count;
      this.#position += count;
      if (this.#position === fragment.length) {
        this.#fragment++;
        this.#position = 0;
      }
    }
  }

  #endContent(): void {
    const isFile = this.#entry?.type === 'file';
    this.#entry = undefined;
    this.#fragments = undefined;
    if (isFile) this.#sink.endEntry();
  }
}

function applyPax(entry: TarEntry, key: string, value: string): void {
  if (key.startsWith('SCHILY.xattr.')) {
    entry.xattrs.push([key.slice('SCHILY.xattr.'.length), value]);
    return;
  }
  if (value === '') return; // an empty value takes back a global one
  switch (key) {
    case 'path':
      entry.name = value;
      break;
    case 'linkpath':
      if (entry.type === 'symlink' || entry.type === 'hardlink') entry.linkname = value;
      break;
    case 'size':
      entry.size = parseCount(value);
      break;
    case 'uid':
      entry.uid = userId(parseDecimal(value));
      break;
    case 'gid':
      entry.gid = userId(parseDecimal(value));
      break;
    case 'mtime':
      entry.mtime = parsePaxTime(value);
      break;
    default:
  }
}

const paddingOf = (size: number) => (blockBytes - (size % blockBytes)) % blockBytes;

/** Bytes up to the first NUL, as latin1. */
function text(buffer: Buffer, offset: number, length: number): string {
  let end = offset;
  while (end < offset + length && buffer[end] !== 0) end++;
  return buffer.toString('latin1', offset, end);
}

/** The checksum field itself counts as eight spaces. */
const zeroChecksum = 8 * 0x20;

function unsignedChecksum(block: Buffer, at: number): number {
  let sum = zeroChecksum;
  for (let index = at; index < at + 148; index++) sum += block[index] ?? 0;
  for (let index = at + 156; index < at + blockBytes; index++) sum += block[index] ?? 0;
  return sum;
}

/** Some old tars added the bytes up as signed characters. */
function signedChecksum(block: Buffer, at: number): number {
  let sum = zeroChecksum;
  for (let index = at; index < at + blockBytes; index++) {
    if (index === at + 148) index = at + 156;
    sum += ((block[index] ?? 0) << 24) >> 24;
  }
  return sum;
}

function isZero(block: Buffer, at: number): boolean {
  for (let index = at; index < at + blockBytes; index++) if (block[index] !== 0) return false;
  return true;
}
