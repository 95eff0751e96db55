import type { Metadata } from '@grpc/grpc-js';

/*
 * When a client cancels a call, Node's http2 ends the stream before it resets it (closeStream in lib/internal/http2/core.js),
 * so a server cannot tell "no more input" from "gone": stdin would look closed, an upload whole. Our clients therefore
 * mark the end of their requests with an empty message and say so in a header. Foreign clients say nothing and their
 * half-close counts as it is.
 */
const marksEndKey = 'flotilla-marks-end';
const nothing = Buffer.alloc(0);

/** The last item of a marked request stream. */
export const endOfRequests: unique symbol = Symbol('end of requests');

export function announceEndMark(metadata: Metadata): void {
  metadata.set(marksEndKey, '1');
}

export function isEndMarked(metadata: Metadata): boolean {
  return metadata.get(marksEndKey).length > 0;
}

/** Serializer that also takes `endOfRequests`. */
export function markingSerializer(serialize: (value: never) => Buffer): (value: unknown) => Buffer {
  return (value) => (value === endOfRequests ? nothing : serialize(value as never));
}

/** An empty message: the end mark if nothing follows, else what it decodes to. */
export class EmptyMessage {
  readonly decode: () => unknown;

  constructor(decode: () => unknown) {
    this.decode = decode;
  }
}

/** Deserializer that leaves empty messages to `withoutEndMark`. */
export function markedDeserializer(deserialize: (bytes: Buffer) => unknown): (bytes: Buffer) => unknown {
  return (bytes) => (bytes.length === 0 ? new EmptyMessage(() => deserialize(bytes)) : deserialize(bytes));
}

/**
 * The requests of a call without its end mark.
 * @returns whether the end was marked.
 */
export async function* withoutEndMark(messages: AsyncIterable<unknown>): AsyncGenerator<unknown, boolean, undefined> {
  let empty: EmptyMessage | undefined;
  for await (const message of messages) {
    if (empty !== undefined) yield empty.decode();
    empty = message instanceof EmptyMessage ? message : undefined;
    if (empty === undefined) yield message;
  }
  return empty !== undefined;
}
