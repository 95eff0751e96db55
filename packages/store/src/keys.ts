import { invalidArgument } from '@flotilla/errors';

// One LevelDB key space: `d!<collection>!<key>` data, `m!...` the store's own state, `o!<sequence>` outbox, `r!<request id>` replies.
export const schemaKey = Buffer.from('m!schema');
export const stateKey = Buffer.from('m!state');

const loneSurrogate = /\p{Surrogate}/u;

/** Bounds of all keys that begin with `prefix`. The byte 0xff ends no UTF-8 text, so it lies behind every key. */
export function prefixRange(prefix: string): { gte: Buffer; lt: Buffer } {
  const gte = Buffer.from(prefix);
  return { gte, lt: Buffer.concat([gte, Buffer.of(0xff)]) };
}

export function checkKey(key: string): void {
  if (loneSurrogate.test(key)) throw invalidArgument('a store key must be well-formed text');
}

export const outboxPrefix = 'o!';
export const outboxKey = (sequence: bigint): Buffer =>
  Buffer.from(outboxPrefix + sequence.toString(16).padStart(16, '0'));

export const replyPrefix = 'r!';
export const replyKey = (requestId: string): Buffer => Buffer.from(replyPrefix + requestId);
