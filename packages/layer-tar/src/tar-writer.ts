import { internal } from '@flotilla/errors';
import { paxRecord } from './pax.js';
import type { TarEntry, TarEntryType } from './tar-entry.js';

const blockBytes = 512;
const bufferBytes = 1 << 20;

const flags: Record<TarEntryType, string> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** What a written member needs; the rest of `TarEntry` has defaults. Names are latin1 strings of bytes. */
export type TarHeader = Pick<TarEntry, 'name' | 'type'> & Partial<Omit<TarEntry, 'sparse'>>;

/**
 * Writes ustar members, with a PAX header only where ustar has no room: long or non-ASCII names, large numbers, times
 * before 1970, attributes. Times are cut at whole seconds, as in Docker's archives.
 *
 * Output is gathered in one buffer of 1 MiB and handed to `output`, which must be done with the bytes when it returns.
 */
export class TarWriter {
  readonly #output: (bytes: Buffer) => void;
  readonly #buffer = Buffer.allocUnsafe(bufferBytes);
  #fill = 0;
  #contentLeft = 0;
  #padding = 0;

  constructor(output: (bytes: Buffer) => void) {
    this.#output = output;
  }

  /** Starts a member. A file of `size` bytes must be followed by exactly that many through `data`. */
  entry(header: TarHeader): void {
    this.#endContent();
    const size = header.type === 'file' ? (header.size ?? 0) : 0;
    const linkname = header.linkname ?? '';
    const fields = {
      uid: header.uid ?? 0,
      gid: header.gid ?? 0,
      size,
      mtime: header.mtime?.seconds ?? 0,
    };
    let pax = '';
    if (needsPax(header.name)) pax += paxRecord('path', header.name);
    if (needsPax(linkname)) pax += paxRecord('linkpath', linkname);
    for (const [key, limit] of limits) {
      if (fields[key] >= 0 && fields[key] <= limit) continue;
      pax += paxRecord(key, String(fields[key]));
      fields[key] = 0;
    }
    for (const [key, value] of header.xattrs ?? []) pax += paxRecord(`SCHILY.xattr.${key}`, value);
    if (pax !== '') {
      const body = Buffer.from(pax, 'latin1');
      const name = `PaxHeaders.0/${asciiTail(header.name)}`;
      this.#header({ name, linkname: '', flag: 'x', mode: 0o644, uid: 0, gid: 0, size: body.length, mtime: 0 });
      this.#append(body);
      this.#zeros(paddingOf(body.length));
    }
    this.#header({
      name: header.name.slice(0, 100),
      linkname: linkname.slice(0, 100),
      flag: flags[header.type],
      mode: header.mode ?? 0,
      ...fields,
      devmajor: header.devmajor ?? 0,
      devminor: header.devminor ?? 0,
    });
    this.#contentLeft = size;
    this.#padding = paddingOf(size);
  }

  /** The next bytes of the current file. */
  data(bytes: Buffer): void {
    if (bytes.length > this.#contentLeft) throw internal('more content than the tar header states');
    this.#contentLeft -= bytes.length;
    this.#append(bytes);
  }

  /**
   * Fills the current file from `read`, which puts bytes at `offset` into `buffer` and returns how many (0 at the end).
   * A source that ends early is filled up with zeros: it shrank while it was read.
   */
  dataFrom(read: (buffer: Buffer, offset: number, length: number) => number): void {
    while (this.#contentLeft > 0) {
      if (this.#fill === bufferBytes) this.#flush();
      const count = read(this.#buffer, this.#fill, Math.min(this.#contentLeft, bufferBytes - this.#fill));
      if (count === 0) break;
      this.#fill += count;
      this.#contentLeft -= count;
    }
    this.#zeros(this.#contentLeft);
    this.#contentLeft = 0;
  }

  /** Writes the two closing blocks and hands over what is left. */
  finish(): void {
    this.#endContent();
    this.#zeros(2 * blockBytes);
    this.#flush();
  }

  #endContent(): void {
    if (this.#contentLeft > 0) throw internal('less content than the tar header states');
    this.#zeros(this.#padding);
    this.#padding = 0;
  }

  #header(fields: HeaderFields): void {
    if (bufferBytes - this.#fill < blockBytes) this.#flush();
    writeHeader(this.#buffer, this.#fill, fields);
    this.#fill += blockBytes;
  }

  #append(bytes: Buffer): void {
    let from = 0;
    while (from < bytes.length) {
      if (this.#fill === bufferBytes) this.#flush();
      const count = bytes.copy(this.#buffer, this.#fill, from);
      this.#fill += count;
      from += count;
    }
  }

  #zeros(count: number): void {
    let left = count;
    while (left > 0) {
      if (this.#fill === bufferBytes) this.#flush();
      const end = Math.min(bufferBytes, this.#fill + left);
      this.#buffer.fill(0, this.#fill, end);
      left -= end - this.#fill;
      this.#fill = end;
    }
  }

  #flush(): void {
    if (this.#fill > 0) this.#output(this.#buffer.subarray(0, this.#fill));
    this.#fill = 0;
  }
}

const limits = [
  ['uid', 0o7777777],
  ['gid', 0o7777777],
  ['size', 0o77777777777],
  ['mtime', 0o77777777777],
] as const;

interface HeaderFields {
  name: string;
  linkname: string;
  flag: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime: number;
  devmajor?: number;
  devminor?: number;
}

function writeHeader(buffer: Buffer, at: number, fields: HeaderFields): void {
  const octal = (value: number, offset: number, length: number) =>
    buffer.write(value.toString(8).padStart(length - 1, '0'), at + offset, length - 1, 'latin1');
  buffer.fill(0, at, at + blockBytes);
  buffer.write(fields.name, at, 100, 'latin1');
  octal(fields.mode & 0o7777, 100, 8);
  octal(fields.uid, 108, 8);
  octal(fields.gid, 116, 8);
  octal(fields.size, 124, 12);
  octal(fields.mtime, 136, 12);
  buffer.write(fields.flag, at + 156, 1, 'latin1');
  buffer.write(fields.linkname, at + 157, 100, 'latin1');
  buffer.write('ustar\x0000', at + 257, 8, 'latin1');
  octal(fields.devmajor ?? 0, 329, 8);
  octal(fields.devminor ?? 0, 337, 8);
  let sum = 8 * 0x20;
  for (let index = at; index < at + blockBytes; index++) sum += buffer[index] ?? 0;
  buffer.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148, 8, 'latin1');
}

const needsPax = (name: string) => name.length > 100 || /[^\x20-\x7e]/.test(name);
const asciiTail = (name: string) => name.replaceAll(/[^\x20-\x7e]/g, '_').slice(-80);
const paddingOf = (size: number) => (blockBytes - (size % blockBytes)) % blockBytes;
