import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { deflateSync, gzipSync } from 'node:zlib';
import type { GelfConfig } from '../options/remote-config.js';
import type { Receiver, SentEntry } from './receiver.js';
import { openTransport, type Transport } from './transport.js';

/** Sizes of go-gelf: a datagram that fits any network, and what a receiver puts together at most. */
const CHUNK_BYTES = 1420;
const CHUNK_HEADER_BYTES = 12;
const MAX_CHUNKS = 128;
const ERROR = 3;
const INFO = 6;
/** Compressing more at once would keep other containers' output waiting. */
const MESSAGES_AT_ONCE = 64;

/** One JSON message per entry; with UDP compressed and in chunks, with TCP ended by a zero byte. Source: Graylog2/go-gelf gelf/udpwriter.go. */
export class GelfReceiver implements Receiver {
  readonly #config: GelfConfig;
  readonly #transport: Transport;

  constructor(config: GelfConfig) {
    this.#config = config;
    this.#transport = openTransport(config.address);
  }

  async send(entries: readonly SentEntry[], signal: AbortSignal): Promise<void> {
    for (let from = 0; from < entries.length; from += MESSAGES_AT_ONCE) {
      const messages = entries
        .slice(from, from + MESSAGES_AT_ONCE)
        .filter(({ text }) => text.length > 0)
        .flatMap((entry) => gelfDatagrams(this.#config, entry, hostname()));
      await this.#transport.write(messages, signal);
      await nextTurn();
    }
  }

  close(): void {
    this.#transport.close();
  }
}

/** What goes over the network for one entry. Empty for one that no receiver could put together. */
export function gelfDatagrams(config: GelfConfig, entry: SentEntry, host: string): Buffer[] {
  const json = Buffer.from(
    JSON.stringify({
      version: '1.1',
      host,
      short_message: entry.text.toString('utf8'),
      timestamp: Date.parse(entry.time) / 1000,
      level: entry.stream === 2 ? ERROR : INFO,
      ...config.fields,
    }),
  );
  if (config.address.proto === 'tcp') return [Buffer.concat([json, Buffer.alloc(1)])];
  const { compression, level } = config;
  const bytes =
    compression === 'gzip' ? gzipSync(json, { level }) : compression === 'zlib' ? deflateSync(json, { level }) : json;
  return bytes.length <= CHUNK_BYTES ? [bytes] : chunks(bytes);
}

function chunks(bytes: Buffer): Buffer[] {
  const size = CHUNK_BYTES - CHUNK_HEADER_BYTES;
  const count = Math.ceil(bytes.length / size);
  if (count > MAX_CHUNKS) return [];
  const id = randomBytes(8);
  return Array.from({ length: count }, (_, index) =>
    Buffer.concat([
      Buffer.from([0x1e, 0x0f]),
      id,
      Buffer.from([index, count]),
      bytes.subarray(index * size, (index + 1) * size),
    ]),
  );
}
