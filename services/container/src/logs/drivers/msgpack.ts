/** Seconds and nanoseconds of fluentd's EventTime, extension type 0. */
export class EventTime {
  readonly seconds: number;
  readonly nanoseconds: number;

  constructor(seconds: number, nanoseconds: number) {
    this.seconds = seconds;
    this.nanoseconds = nanoseconds;
  }
}

/** What can be encoded: bytes become a string, a map's entries keep their order. Numbers are integers from 0 to 2^32 - 1. */
export type Packable =
  string | Buffer | number | EventTime | readonly Packable[] | { readonly [name: string]: Packable };

/** MessagePack, as far as the forward protocol needs it. */
export function pack(value: Packable): Buffer {
  const parts: Buffer[] = [];
  add(parts, value);
  return Buffer.concat(parts);
}

function add(parts: Buffer[], value: Packable): void {
  if (typeof value === 'number') {
    parts.push(value < 0x80 ? Buffer.from([value]) : head(0xce, value, 4));
  } else if (typeof value === 'string' || Buffer.isBuffer(value)) {
    const bytes = typeof value === 'string' ? Buffer.from(value) : value;
    parts.push(sized(bytes.length, 0xa0, 32, [0xd9, 0xda, 0xdb]), bytes);
  } else if (value instanceof EventTime) {
    const bytes = Buffer.from([0xd7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.writeUInt32BE(value.seconds, 2);
    bytes.writeUInt32BE(value.nanoseconds, 6);
    parts.push(bytes);
  } else if (Array.isArray(value)) {
    const items = value as readonly Packable[];
    parts.push(sized(items.length, 0x90, 16, [undefined, 0xdc, 0xdd]));
    for (const item of items) add(parts, item);
  } else {
    const entries = Object.entries(value);
    parts.push(sized(entries.length, 0x80, 16, [undefined, 0xde, 0xdf]));
    for (const [name, item] of entries) {
      add(parts, name);
      add(parts, item);
    }
  }
}

/** The shortest head for a length: within one byte below `fixed`, else with 1, 2 or 4 bytes of length. */
function sized(
  length: number,
  base: number,
  fixed: number,
  heads: readonly [number | undefined, number, number],
): Buffer {
  if (length < fixed) return Buffer.from([base | length]);
  if (heads[0] !== undefined && length < 0x100) return head(heads[0], length, 1);
  return length < 0x10000 ? head(heads[1], length, 2) : head(heads[2], length, 4);
}

function head(first: number, value: number, size: number): Buffer {
  const bytes = Buffer.alloc(1 + size);
  bytes[0] = first;
  bytes.writeUIntBE(value, 1, size);
  return bytes;
}
