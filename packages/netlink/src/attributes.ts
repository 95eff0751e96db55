/** Set in an attribute's type when its payload is a list of attributes. */
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;
const HEADER_SIZE = 4;

/** Attributes by type, the last one of a type winning; for lists of equal types see `decodeAttributeList`. */
export type Attributes = ReadonlyMap<number, Buffer>;

const aligned = (length: number): number => (length + 3) & ~3;

/** One attribute (struct nlattr): length, type, payload, padded to four bytes. */
export function attribute(type: number, payload: Uint8Array): Buffer {
  const length = HEADER_SIZE + payload.length;
  const bytes = Buffer.alloc(aligned(length));
  bytes.writeUInt16LE(length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(payload, HEADER_SIZE);
  return bytes;
}

/** An attribute whose payload is `children`, marked as nested. */
export function nested(type: number, ...children: Uint8Array[]): Buffer {
  return attribute(type | NLA_F_NESTED, Buffer.concat(children));
}

/**
 * Attributes in order, the nested mark removed from their types.
 *
 * A list cut short ends the walk: what the kernel sends is well formed, and the rest of a damaged one has no meaning.
 */
export function decodeAttributeList(bytes: Buffer, start = 0): [type: number, payload: Buffer][] {
  const list: [number, Buffer][] = [];
  let offset = start;
  while (offset + HEADER_SIZE <= bytes.length) {
    const length = bytes.readUInt16LE(offset);
    if (length < HEADER_SIZE || offset + length > bytes.length) break;
    list.push([bytes.readUInt16LE(offset + 2) & NLA_TYPE_MASK, bytes.subarray(offset + HEADER_SIZE, offset + length)]);
    offset += aligned(length);
  }
  return list;
}

export function decodeAttributes(bytes: Buffer, start = 0): Attributes {
  return new Map(decodeAttributeList(bytes, start));
}

/** Attributes inside a nested attribute; empty when it is absent. */
export function decodeNested(attributes: Attributes, type: number): Attributes {
  const bytes = attributes.get(type);
  return bytes === undefined ? new Map() : decodeAttributes(bytes);
}

export function uint8(value: number): Buffer {
  return Buffer.from([value]);
}

/** Host byte order, as rtnetlink wants it. */
export function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

/** Host byte order, as rtnetlink wants it (every supported machine is little-endian). */
export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

/** Network byte order, as nfnetlink wants it. */
export function uint32Network(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

export function uint16Network(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** Text with the terminating zero that the kernel wants. */
export function text(value: string): Buffer {
  return Buffer.from(`${value}\0`);
}

export function readText(bytes: Buffer | undefined): string | undefined {
  if (bytes === undefined) return undefined;
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}
