import type { PaxRecord } from './pax.js';
import type { SparseFragment } from './tar-entry.js';
import { invalidHeader, parseCount, parseNumber } from './tar-numbers.js';

/** More than this of maps in one entry is an attack, not a file: as large as other metadata may be. */
const maxMapBytes = 1 << 20;
const oldFragmentBytes = 24;

/** Checks order and bounds; drops the empty fragments that mark the end. `stored` is what the archive holds. */
export function checkFragments(fragments: SparseFragment[], size: number, stored: number): SparseFragment[] {
  let end = 0;
  let sum = 0;
  for (const { offset, length } of fragments) {
    if (offset < end || offset + length > size) throw invalidHeader('invalid sparse map');
    end = offset + length;
    sum += length;
  }
  if (sum !== stored) throw invalidHeader('sparse map and data differ in size');
  return fragments.filter(({ length }) => length > 0);
}

/** Old GNU format: fragments in the header (4, at 386) and in extension blocks (21 each). */
export class OldGnuSparse {
  readonly fragments: SparseFragment[] = [];
  readonly size: number;
  /** Whether another extension block follows. */
  more: boolean;

  constructor(header: Buffer, offset: number) {
    this.size = parseNumber(header, offset + 483, 12);
    if (this.size < 0) throw invalidHeader('negative size');
    this.more = header[offset + 482] === 1;
    this.#read(header, offset + 386, 4);
  }

  extend(block: Buffer): void {
    this.more = block[504] === 1;
    this.#read(block, 0, 21);
    if (this.fragments.length * oldFragmentBytes > maxMapBytes) throw invalidHeader('sparse map too large');
  }

  #read(block: Buffer, start: number, count: number): void {
    for (let at = start; at < start + count * oldFragmentBytes; at += oldFragmentBytes) {
      if (block[at] === 0) return;
      const offset = parseNumber(block, at, 12);
      const length = parseNumber(block, at + 12, 12);
      if (offset < 0 || length < 0) throw invalidHeader('invalid sparse map');
      this.fragments.push({ offset, length });
    }
  }
}

/** Format 1.0: decimal numbers, one per line, at the start of the data, filled up to a block. */
export class DataSparseMap {
  #text = '';
  #lines = 0;

  /** Takes the next block of the data; returns the fragments once they are complete. */
  add(block: Buffer): SparseFragment[] | undefined {
    this.#text += block.toString('latin1');
    if (this.#text.length > maxMapBytes) throw invalidHeader('sparse map too large');
    for (const byte of block) if (byte === 0x0a) this.#lines++;
    if (this.#lines === 0) return undefined;
    const firstEnd = this.#text.indexOf('\n');
    const count = parseCount(this.#text.slice(0, firstEnd));
    if (this.#lines < 1 + count * 2) return undefined;
    return pairs(this.#text.slice(firstEnd + 1).split('\n', count * 2));
  }
}

/** What PAX records say about a sparse file. */
export interface PaxSparse {
  name: string | undefined;
  size: number;
  /** Undefined for format 1.0, where the map is in the data. */
  fragments: SparseFragment[] | undefined;
}

/** Reads GNU.sparse.* records of the formats 0.0, 0.1 and 1.0; undefined when the file is not sparse. */
export function paxSparse(records: PaxRecord[]): PaxSparse | undefined {
  const values = new Map<string, string>();
  const numbers: string[] = [];
  for (const [key, value] of records) {
    if (!key.startsWith('GNU.sparse.')) continue;
    const name = key.slice('GNU.sparse.'.length);
    if (name === 'offset' || name === 'numbytes') {
      // Format 0.0: the two alternate.
      if ((name === 'offset') !== (numbers.length % 2 === 0)) throw invalidHeader('invalid sparse map');
      numbers.push(value);
    } else values.set(name, value);
  }
  const major = values.get('major');
  const minor = values.get('minor');
  const version = major === undefined && minor === undefined ? undefined : `${major ?? ''}.${minor ?? ''}`;
  const map = values.get('map');
  const size = values.get('realsize') ?? values.get('size');
  const name = values.get('name');
  if (version === '1.0') {
    if (size === undefined) throw invalidHeader('sparse file without size');
    return { name, size: parseCount(size), fragments: undefined };
  }
  if (version !== undefined && version !== '0.0' && version !== '0.1') throw invalidHeader('unknown sparse format');
  if (map === undefined && numbers.length === 0) {
    if (size === undefined) return undefined;
    return values.has('numblocks') ? { name, size: parseCount(size), fragments: [] } : undefined;
  }
  if (size === undefined) throw invalidHeader('sparse file without size');
  const listed = map === undefined ? numbers : map === '' ? [] : map.split(',');
  const count = values.get('numblocks');
  if (listed.length % 2 !== 0 || (count !== undefined && parseCount(count) * 2 !== listed.length)) {
    throw invalidHeader('invalid sparse map');
  }
  return { name, size: parseCount(size), fragments: pairs(listed) };
}

function pairs(numbers: string[]): SparseFragment[] {
  const fragments: SparseFragment[] = [];
  for (let index = 0; index + 1 < numbers.length; index += 2) {
    fragments.push({ offset: parseCount(numbers[index] ?? ''), length: parseCount(numbers[index + 1] ?? '') });
  }
  return fragments;
}
