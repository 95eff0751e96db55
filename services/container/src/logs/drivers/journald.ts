import { existsSync } from 'node:fs';
import type { JournaldConfig } from '../options/remote-config.js';
import type { Receiver, SentEntry } from './receiver.js';
import { openTransport, type Transport } from './transport.js';

const ERROR = 3;
const INFO = 6;

/** Where journald listens. */
export const JOURNAL_SOCKET = '/run/systemd/journal/socket';

export function hasJournal(path = JOURNAL_SOCKET): boolean {
  return existsSync(path);
}

/** One datagram of journald's native protocol per entry. */
export class JournaldReceiver implements Receiver {
  readonly #config: JournaldConfig;
  readonly #transport: Transport;

  constructor(config: JournaldConfig, path = JOURNAL_SOCKET) {
    this.#config = config;
    this.#transport = openTransport({ proto: 'unixgram', path });
  }

  async send(entries: readonly SentEntry[], signal: AbortSignal): Promise<void> {
    await this.#transport.write(
      entries.map((entry) => journalMessage(this.#config, entry)),
      signal,
    );
  }

  close(): void {
    this.#transport.close();
  }
}

/** Fields as dockerd names them. Source: moby/moby daemon/logger/journald/journald.go, systemd docs JOURNAL_NATIVE_PROTOCOL. */
export function journalMessage({ fields }: JournaldConfig, { stream, text, time, partial }: SentEntry): Buffer {
  const parts = [
    field('MESSAGE', text),
    field('PRIORITY', String(stream === 2 ? ERROR : INFO)),
    field('SYSLOG_TIMESTAMP', time),
    ...Object.entries(fields)
      .filter(([name]) => name !== '')
      .map(([name, value]) => field(name, value)),
  ];
  if (partial !== undefined) {
    if (!partial.isLast) parts.push(field('CONTAINER_PARTIAL_MESSAGE', 'true'));
    parts.push(
      field('CONTAINER_PARTIAL_ID', partial.id),
      field('CONTAINER_PARTIAL_ORDINAL', String(partial.ordinal)),
      field('CONTAINER_PARTIAL_LAST', String(partial.isLast)),
    );
  }
  return Buffer.concat(parts);
}

/** `NAME=value`, or with a length where the value has newlines: name, newline, u64 little-endian, value, newline. */
function field(name: string, value: string | Buffer): Buffer {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  if (!bytes.includes(0x0a)) return Buffer.concat([Buffer.from(`${name}=`), bytes, Buffer.from('\n')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(bytes.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, bytes, Buffer.from('\n')]);
}
