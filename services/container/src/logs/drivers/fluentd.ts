import { randomBytes } from 'node:crypto';
import { STREAM_NAMES } from '../files/json-line-encoder.js';
import type { FluentdConfig } from '../options/remote-config.js';
import { EventTime, pack, type Packable } from './msgpack.js';
import type { Receiver, SentEntry } from './receiver.js';
import { StreamTransport } from './transport.js';

const ACK_TIMEOUT_MS = 60_000;

/** Fluentd's forward protocol, version 1, in forward mode: one message for a batch of entries. Records as dockerd makes them. */
export class FluentdReceiver implements Receiver {
  readonly #config: FluentdConfig;
  readonly #transport: StreamTransport;

  constructor(config: FluentdConfig) {
    this.#config = config;
    this.#transport = new StreamTransport(config.address);
  }

  async send(entries: readonly SentEntry[], signal: AbortSignal): Promise<void> {
    if (!this.#config.requestAck) {
      await this.#transport.write([forwardMessage(this.#config, entries)], signal);
      return;
    }
    const chunk = randomBytes(16).toString('base64');
    await this.#transport.write([forwardMessage(this.#config, entries, chunk)], signal);
    const answer = await this.#transport.answer(ACK_TIMEOUT_MS, signal);
    if (!answer.includes(pack({ ack: chunk }).subarray(1))) {
      this.#transport.close();
      throw new Error('fluentd acknowledged something else');
    }
  }

  close(): void {
    this.#transport.close();
  }
}

/** `[tag, [[time, record], ...], options]`. */
export function forwardMessage(config: FluentdConfig, entries: readonly SentEntry[], chunk?: string): Buffer {
  const options: Packable = { size: entries.length, ...(chunk === undefined ? {} : { chunk }) };
  return pack([config.tag, entries.map((entry) => [eventTime(config, entry.time), record(config, entry)]), options]);
}

function eventTime({ subSecondPrecision }: FluentdConfig, time: string): Packable {
  const seconds = Math.floor(Date.parse(time) / 1000);
  return subSecondPrecision ? new EventTime(seconds, Number(time.slice(20, 29))) : seconds;
}

function record({ fields }: FluentdConfig, { stream, text, partial }: SentEntry): Packable {
  return {
    source: STREAM_NAMES[stream],
    log: text,
    ...fields,
    ...(partial === undefined
      ? {}
      : {
          partial_message: 'true',
          partial_id: partial.id,
          partial_ordinal: String(partial.ordinal),
          partial_last: String(partial.isLast),
        }),
  };
}
