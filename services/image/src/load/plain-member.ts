/** A member of a tar as its header alone tells it. */
export interface PlainMember {
  readonly name: string;
  readonly size: number;
  /** With what fills its last block. */
  readonly paddedSize: number;
}

export const tarBlockBytes = 512;
const checksumAt = 148;
const checksumEnd = 156;

/**
 * The member of which `block` begins with the header, if nothing else in the archive has a say about it: a file, a
 * directory or a link of ustar or older. undefined for everything else, and for what is no header.
 */
export function plainMember(block: Buffer): PlainMember | undefined {
  if (block.length < tarBlockBytes) return undefined;
  let sum = 32 * (checksumEnd - checksumAt);
  for (let at = 0; at < tarBlockBytes; at += 1) if (at < checksumAt || at >= checksumEnd) sum += block[at] ?? 0;
  const size = octal(block, 124, 12);
  if (octal(block, checksumAt, 8) !== sum || size === undefined) return undefined;
  const type = block[156] ?? 0;
  const isFile = type === 0 || type === 0x30;
  const isOther = type === 0x31 || type === 0x32 || type === 0x35;
  const prefix = block.toString('latin1', 257, 263) === 'ustar\0' ? text(block, 345, 155) : '';
  const name = prefix === '' ? text(block, 0, 100) : `${prefix}/${text(block, 0, 100)}`;
  // Old archives call directories so.
  if (!(isFile && !name.endsWith('/')) && !(isOther && size === 0)) return undefined;
  return { name, size, paddedSize: Math.ceil(size / tarBlockBytes) * tarBlockBytes };
}

function octal(block: Buffer, at: number, length: number): number | undefined {
  const digits = /^ *([0-7]+)[ \0]*$/.exec(block.toString('latin1', at, at + length))?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 8);
}

function text(block: Buffer, at: number, length: number): string {
  const end = block.indexOf(0, at);
  return block.toString('utf8', at, end < 0 ? at + length : Math.min(end, at + length));
}
