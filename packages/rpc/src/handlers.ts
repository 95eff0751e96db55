import type { Metadata } from '@grpc/grpc-js';
import type { Identity } from './identity.js';
import type { AnyMethod, AnyServiceDefinition, RequestOf, ResponseOf } from './method-types.js';

/** What a handler knows of its call. */
export interface CallContext {
  /** Same for every retry of one call; the key of the owner's reply cache. */
  readonly requestId: string;
  /** Fires when the caller went away or its deadline passed, and for streams when the server shuts down. Never after the handler has ended. */
  readonly signal: AbortSignal;
  readonly identity: Identity;
  readonly metadata: Metadata;
}

/** Reads one message; ts-proto's codecs are such. */
export interface Decoder<T> {
  decode(input: Uint8Array): T;
}

export interface UnaryOptions<Res> {
  /**
   * Answer a repeated request id from the server's `replies`, and join one that is still running. The domain stores the
   * encoded response with `batch.reply(ctx.requestId, bytes)` in the batch of its change.
   */
  idempotent?: Decoder<Res> | true;
}

export interface UnaryMethod<Req, Res> {
  readonly kind: 'unary';
  readonly handle: (request: Req, context: CallContext) => Promise<Res>;
  readonly idempotent: boolean;
}
export interface ServerStreamMethod<Req, Res> {
  readonly kind: 'serverStream';
  readonly handle: (request: Req, context: CallContext) => AsyncIterable<Res>;
}
export interface ClientStreamMethod<Req, Res> {
  readonly kind: 'clientStream';
  readonly handle: (requests: AsyncIterable<Req>, context: CallContext) => Promise<Res>;
}
export interface BidiMethod<Req, Res> {
  readonly kind: 'bidi';
  readonly handle: (requests: AsyncIterable<Req>, context: CallContext) => AsyncIterable<Res>;
}

/** A handler as `serve` takes it, whatever its messages. */
export type AnyHandler =
  | {
      readonly kind: 'unary';
      readonly handle: (request: never, context: CallContext) => Promise<unknown>;
      readonly idempotent: boolean;
    }
  | { readonly kind: 'serverStream'; readonly handle: (request: never, context: CallContext) => AsyncIterable<unknown> }
  | {
      readonly kind: 'clientStream';
      readonly handle: (requests: AsyncIterable<never>, context: CallContext) => Promise<unknown>;
    }
  | {
      readonly kind: 'bidi';
      readonly handle: (requests: AsyncIterable<never>, context: CallContext) => AsyncIterable<unknown>;
    };

/** One request, one answer. Anything the handler throws becomes the call's status. */
export function unary<Req, Res>(
  handle: (request: Req, context: CallContext) => Promise<Res>,
  options: UnaryOptions<Res> = {},
): UnaryMethod<Req, Res> {
  return { kind: 'unary', handle, idempotent: options.idempotent !== undefined };
}

/**
 * One request, many answers. The iterable is asked for the next message only when the connection takes more. When the
 * caller goes away it is ended with `return()`; a generator that waits at that moment must listen to `context.signal`.
 */
export function serverStream<Req, Res>(
  handle: (request: Req, context: CallContext) => AsyncIterable<Res>,
): ServerStreamMethod<Req, Res> {
  return { kind: 'serverStream', handle };
}

/**
 * Many requests, one answer. `requests` ends at the caller's half-close and throws `cancelled` when the caller goes
 * away; leaving it early is allowed.
 */
export function clientStream<Req, Res>(
  handle: (requests: AsyncIterable<Req>, context: CallContext) => Promise<Res>,
): ClientStreamMethod<Req, Res> {
  return { kind: 'clientStream', handle };
}

/** Many requests, many answers; `clientStream` and `serverStream` at once. The end of `requests` does not end the answers. */
export function bidi<Req, Res>(
  handle: (requests: AsyncIterable<Req>, context: CallContext) => AsyncIterable<Res>,
): BidiMethod<Req, Res> {
  return { kind: 'bidi', handle };
}

export type HandlerFor<M extends AnyMethod> = M extends { requestStream: true; responseStream: true }
  ? BidiMethod<RequestOf<M>, ResponseOf<M>>
  : M extends { requestStream: true }
    ? ClientStreamMethod<RequestOf<M>, ResponseOf<M>>
    : M extends { responseStream: true }
      ? ServerStreamMethod<RequestOf<M>, ResponseOf<M>>
      : UnaryMethod<RequestOf<M>, ResponseOf<M>>;

/** Handlers of a service; a method left out answers UNIMPLEMENTED. */
export type Implementation<D extends AnyServiceDefinition> = { readonly [K in keyof D]?: HandlerFor<D[K]> };

/** A service definition with its handlers. */
export type ServiceEntry = readonly [definition: AnyServiceDefinition, handlers: Readonly<Record<string, AnyHandler>>];

/** A `ServiceEntry` whose handlers are checked against the definition. */
export function serviceEntry<D extends AnyServiceDefinition>(definition: D, handlers: Implementation<D>): ServiceEntry {
  return [definition, handlers as Readonly<Record<string, AnyHandler>>];
}
