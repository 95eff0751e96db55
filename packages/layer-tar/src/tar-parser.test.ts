import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isEngineError } from '@flotilla/errors';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { TarParser, TarWriter } from './index.js';
import type { TarEntry, TarHeader } from './index.js';

interface Member extends TarEntry {
  content: Buffer;
}

/** Everything in an archive that is fed in pieces of `pieceBytes`. */
function readAll(archive: Buffer, pieceBytes = archive.length): Member[] {
  const members: Member[] = [];
  let open: Member | undefined;
  const parser = new TarParser({
    entry(entry) {
      expect(open).toBeUndefined();
      const member = { ...entry, content: Buffer.alloc(Math.min(entry.size, 1 << 24)) };
      members.push(member);
      if (entry.type === 'file') open = member;
    },
    data(bytes, offset) {
      bytes.copy(open?.content ?? Buffer.alloc(0), offset);
    },
    endEntry() {
      expect(open).toBeDefined();
      open = undefined;
    },
  });
  for (let at = 0; at < archive.length; at += Math.max(pieceBytes, 1)) {
    parser.write(archive.subarray(at, at + Math.max(pieceBytes, 1)));
  }
  parser.end();
  return members;
}

function archiveOf(...members: [TarHeader, string?][]): Buffer {
  const parts: Buffer[] = [];
  const writer = new TarWriter((bytes) => parts.push(Buffer.from(bytes)));
  for (const [header, content = ''] of members) {
    const body = Buffer.from(content, 'latin1');
    writer.entry({ ...header, size: body.length });
    if (body.length > 0) writer.data(body);
  }
  writer.finish();
  return Buffer.concat(parts);
}

/** A header block with a right checksum; `patch` changes it first. */
function block(patch: (block: Buffer) => void): Buffer {
  const header = archiveOf([{ name: 'x', type: 'file' }]).subarray(0, 512);
  patch(header);
  let sum = 256;
  for (const [index, byte] of header.entries()) if (index < 148 || index >= 156) sum += byte;
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 8, 'latin1');
  return header;
}

function paxed(records: string, next: Buffer): Buffer {
  const body = Buffer.from(records, 'latin1');
  const header = block((b) => {
    b.write('x', 156);
    b.write(body.length.toString(8).padStart(11, '0'), 124);
  });
  return Buffer.concat([header, body, Buffer.alloc((512 - (body.length % 512)) % 512), next]);
}

const failure = (archive: Buffer): string => {
  try {
    readAll(archive);
  } catch (error) {
    if (isEngineError(error)) return `${error.kind}: ${error.message}`;
    throw error;
  }
  return 'none';
};
const closing = Buffer.alloc(1024);

describe('TarParser', () => {
  it('reads what TarWriter writes, to the byte, in pieces of any size', () => {
    const capability = '\x01\x00\x00\x02\x00\x04\x00\x00\xff\n=\x00';
    const headers: TarHeader[] = [
      { name: 'dir/', type: 'directory', mode: 0o1777, mtime: { seconds: -86400, nanoseconds: 0 } },
      { name: 'dir/\xff\xfe\n', type: 'file', mode: 0o4755, uid: 300000, gid: 0xfffffffe },
      {
        name: 'x'.repeat(300),
        type: 'file',
        xattrs: [
          ['security.capability', capability],
          ['user.e', ''],
        ],
      },
      { name: 'link', type: 'symlink', linkname: 'y'.repeat(200) },
      { name: 'hard', type: 'hardlink', linkname: 'dir/f' },
      { name: 'null', type: 'char', devmajor: 1, devminor: 3 },
      { name: 'disk', type: 'block', devmajor: 8, devminor: 300000 },
      { name: 'fifo', type: 'fifo', mtime: { seconds: 0o77777777777 + 1, nanoseconds: 0 } },
    ];
    const archive = archiveOf(
      ...headers.map((header): [TarHeader, string?] => [header, header.type === 'file' ? 'abc'.repeat(400) : '']),
    );
    for (const piece of [1, 7, 511, 512, 513, 1500, archive.length]) {
      const members = readAll(archive, piece);
      expect(members).toHaveLength(headers.length);
      for (const [index, header] of headers.entries()) expect(members[index]).toMatchObject(header);
      expect(members[2]?.content.toString()).toBe('abc'.repeat(400));
    }
  });

  it('applies PAX numbers and times', () => {
    const records = '16 uid=0000123\n11 gid=-2\n25 mtime=1577934245.1234\n';
    const archive = Buffer.concat([
      paxed(
        fixLengths(records),
        block(() => undefined),
      ),
      closing,
    ]);
    expect(readAll(archive)[0]).toMatchObject({
      uid: 123,
      gid: 0xfffffffe,
      mtime: { seconds: 1577934245, nanoseconds: 123400000 },
    });
    const before = Buffer.concat([
      paxed(
        fixLengths('0 mtime=-1.5\n'),
        block(() => undefined),
      ),
      closing,
    ]);
    expect(readAll(before)[0]?.mtime).toEqual({ seconds: -2, nanoseconds: 500000000 });
  });

  it('reads base-256 numbers and treats old headers as Go does', () => {
    const archive = Buffer.concat([
      block((b) => {
        b.fill(0, 108, 116).writeUInt32BE(0x80000000, 108);
        b.writeUInt32BE(3000000, 112);
        b.fill(0xff, 136, 148).writeInt32BE(-10, 144);
      }),
      block((b) => b.fill(0, 156, 157).write('old-dir/\0', 0)),
      block((b) => b.fill(0x20, 108, 116)),
      closing,
    ]);
    const [first, second, third] = readAll(archive);
    expect(first).toMatchObject({ uid: 3000000, mtime: { seconds: -10 } });
    expect(second?.type).toBe('directory');
    expect(third?.uid).toBe(0);
  });

  it('ignores global headers, and what follows the closing blocks', () => {
    const global = paxed(fixLengths('0 comment=hello\n'), Buffer.alloc(0));
    global.write('g', 156);
    const fixed = Buffer.concat([
      block((b) => {
        global.copy(b, 0, 0, 512);
      }),
      global.subarray(512),
      block(() => undefined),
      closing,
      Buffer.from('rubbish'.repeat(200)),
    ]);
    expect(readAll(fixed)).toHaveLength(1);
  });

  it('refuses what is malformed', () => {
    const plain = block(() => undefined);
    const cases: [string, Buffer, RegExp][] = [
      ['no tar at all', Buffer.from('hello world'.repeat(100)), /^invalidArgument: .*invalid tar header/],
      ['checksum', Buffer.concat([plain.subarray(0, 100), Buffer.from([1]), plain.subarray(101)]), /checksum/],
      ['octal', block((b) => b.write('9', 108)), /octal/],
      ['negative size', block((b) => b.fill(0xff, 124, 136)), /negative size/],
      ['huge size', block((b) => b.fill(0x7f, 125, 136).fill(0x80, 124, 125)), /out of range/],
      ['type', block((b) => b.write('V', 156)), /unhandled tar header type "V"/],
      ['metadata size', block((b) => b.write('L', 156) && b.write('77777777777', 124)), /too long/],
      ['one closing block', Buffer.concat([Buffer.alloc(512), plain]), /closing block/],
      ['PAX length', paxed('99 path=x\n', plain), /malformed PAX/],
      ['PAX zero length', paxed('0 a=b\n', plain), /malformed PAX/],
      ['PAX without newline', paxed('8 path=xy', plain), /malformed PAX/],
      ['PAX without key', paxed('6 =xy\n', plain), /malformed PAX/],
      ['PAX NUL in path', paxed(fixLengths('0 path=a\0b\n'), plain), /NUL/],
      ['PAX number', paxed(fixLengths('0 uid=abc\n'), plain), /invalid number/],
      ['PAX big uid', paxed(fixLengths('0 uid=99999999999\n'), plain), /id out of range/],
      ['PAX negative size', paxed(fixLengths('0 size=-5\n'), plain), /negative/],
      ['PAX time', paxed(fixLengths('0 mtime=soon\n'), plain), /invalid time/],
      ['sparse map', paxed(fixLengths('0 GNU.sparse.size=5\n0 GNU.sparse.map=3,5\n'), plain), /sparse/],
      ['sparse odd', paxed(fixLengths('0 GNU.sparse.size=5\n0 GNU.sparse.map=3\n'), plain), /sparse/],
      ['cut header', plain.subarray(0, 100), /^dataLoss: .*unexpected EOF/],
      ['cut content', block((b) => b.write('00000000100', 124)), /unexpected EOF/],
      ['cut after PAX', paxed(fixLengths('0 path=x\n'), Buffer.alloc(0)), /unexpected EOF/],
    ];
    for (const [name, archive, expected] of cases)
      expect([name, failure(archive)]).toEqual([name, expect.stringMatching(expected)]);
  });

  it('never does anything but throw an EngineError on changed or random input', () => {
    const seed = archiveOf(
      [{ name: 'a'.repeat(200), type: 'file', xattrs: [['user.a', 'b']] }, 'content'],
      [{ name: 'd/', type: 'directory' }],
      [{ name: 'l', type: 'symlink', linkname: 'z'.repeat(150) }],
    );
    const change = fc.record({ at: fc.nat(seed.length - 1), value: fc.nat(255) });
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 6 }),
        fc.nat(seed.length),
        fc.integer({ min: 1, max: 2000 }),
        (changes, length, piece) => {
          const archive = Buffer.from(seed.subarray(0, length));
          for (const { at, value } of changes) if (at < length) archive[at] = value;
          try {
            readAll(archive, piece);
          } catch (error) {
            if (!isEngineError(error)) throw error;
          }
        },
      ),
      { numRuns: 400 },
    );
    const sparse = fc.stringMatching(/^[0-9,\n-]{0,40}$/);
    fc.assert(
      fc.property(
        sparse,
        sparse,
        fc.constantFrom('map', 'offset', 'numbytes', 'realsize', 'name'),
        (size, value, key) => {
          const major = key === 'realsize' || key === 'name' ? '0 GNU.sparse.major=1\n0 GNU.sparse.minor=0\n' : '';
          const records = fixLengths(
            `${major}0 GNU.sparse.size=${size.replaceAll('\n', '')}\n0 GNU.sparse.${key}=${value.replaceAll('\n', '')}\n`,
          );
          const content = Buffer.alloc(1024, value === '' ? '1\n' : value);
          const archive = Buffer.concat([
            paxed(
              records,
              block((b) => b.write('00000002000', 124)),
            ),
            content,
            closing,
          ]);
          try {
            readAll(archive);
          } catch (error) {
            if (!isEngineError(error)) throw error;
          }
        },
      ),
      { numRuns: 400 },
    );
  });
});

/** Puts the right length in front of each record (given with any number there). */
function fixLengths(records: string): string {
  return records
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const rest = line.slice(line.indexOf(' '));
      let length = rest.length + 1;
      while (String(length).length + rest.length + 1 !== length) length = String(length).length + rest.length + 1;
      return `${length}${rest}\n`;
    })
    .join('');
}

describe('sparse files of GNU tar', () => {
  const dir = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-tar-'));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  const stretches = Array.from({ length: 60 }, (_, index) => index * 65536 + 4096);
  const size = 60 * 65536 + 12345;
  const fd = openSync(join(dir, 'holes'), 'w');
  for (const at of stretches) writeSync(fd, `data at ${at}`, at);
  ftruncateSync(fd, size);
  closeSync(fd);
  const empty = openSync(join(dir, 'only-hole'), 'w');
  ftruncateSync(empty, 1 << 20);
  closeSync(empty);

  it.each([
    ['old GNU', ['--format=gnu']],
    ['PAX 0.0', ['--format=posix', '--sparse-version=0.0']],
    ['PAX 0.1', ['--format=posix', '--sparse-version=0.1']],
    ['PAX 1.0', ['--format=posix', '--sparse-version=1.0']],
  ])('%s', (_, options) => {
    const archive = execFileSync('tar', [...options, '-S', '-C', dir, '-cf', '-', 'holes', 'only-hole'], {
      maxBuffer: 1 << 26,
    });
    expect(archive.length).toBeLessThan(size / 2);
    for (const piece of [100, 512, archive.length]) {
      const [file, hole, ...rest] = readAll(archive, piece);
      expect(rest).toEqual([]);
      expect(file).toMatchObject({ name: 'holes', type: 'file', size });
      expect(file?.sparse?.length).toBeGreaterThanOrEqual(60);
      for (const at of stretches) {
        expect(file?.content.toString('latin1', at, at + `data at ${at}`.length)).toBe(`data at ${at}`);
      }
      expect(hole).toMatchObject({ name: 'only-hole', size: 1 << 20 });
    }
  });
});
