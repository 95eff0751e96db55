import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import type { EventEmitter } from 'node:events';
import type {
  Metadata,
  ServerDuplexStream,
  ServerReadableStream,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedHandleCall,
  sendUnaryData,
} from '@grpc/grpc-js';
import { cancelled, internal, invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { answerMetadata, identityOf, observeClock, requestIdOf } from './call-metadata.js';
import type { Clock } from './call-metadata.js';
import type { AnyHandler, CallContext } from './handlers.js';
import { pumpMessages } from './message-pump.js';
import type { CallMetrics } from './metrics.js';
import type { AnyMethod } from './method-types.js';
import { plainUnavailable, toStatus } from './status.js';
import type { StatusAnswer } from './status.js';
import { isEndMarked, withoutEndMark } from './stream-end.js';

/** Kept results of calls, by request id: the reply cache of packages/store. */
export interface ReplyReader {
  get(requestId: string): Promise<Uint8Array | undefined>;
}

/** What all calls of one server share. */
export interface CallHost {
  readonly log: Logger;
  readonly clock: Clock | undefined;
  readonly replies: ReplyReader | undefined;
  readonly metrics: CallMetrics;
  /** Calls that run, so that shutting down can end them. */
  readonly running: Set<RunningCall>;
  /** Idempotent calls that run, by request id. */
  readonly inFlight: Map<string, Promise<unknown>>;
}

type AnyServerCall =
  | ServerUnaryCall<unknown, unknown>
  | ServerReadableStream<unknown, unknown>
  | ServerWritableStream<unknown, unknown>
  | ServerDuplexStream<unknown, unknown>;

/** Wrap a handler for grpc-js: context, status mapping, backpressure, cancellation, idempotence, metrics. */
export function bindHandler(method: AnyMethod, handler: AnyHandler, host: CallHost): UntypedHandleCall {
  switch (handler.kind) {
    case 'unary':
      return (call: ServerUnaryCall<unknown, unknown>, callback: sendUnaryData<unknown>) =>
        void answerOnce(
          call,
          callback,
          (context) => {
            const run = () => handler.handle(call.request as never, context);
            return handler.idempotent ? answerIdempotently(method, context, host, run) : run();
          },
          { method, host, isStream: false },
        );
    case 'clientStream':
      return (call: ServerReadableStream<unknown, unknown>, callback: sendUnaryData<unknown>) =>
        void answerOnce(call, callback, (context) => handler.handle(requestsOf(call, context.signal), context), {
          method,
          host,
          isStream: true,
        });
    case 'serverStream':
      return (call: ServerWritableStream<unknown, unknown>) =>
        void answerMany(call, (context) => handler.handle(call.request as never, context), { method, host });
    case 'bidi':
      return (call: ServerDuplexStream<unknown, unknown>) =>
        void answerMany(call, (context) => handler.handle(requestsOf(call, context.signal), context), { method, host });
  }
}

interface Binding {
  readonly method: AnyMethod;
  readonly host: CallHost;
}

async function answerOnce(
  call: ServerUnaryCall<unknown, unknown> | ServerReadableStream<unknown, unknown>,
  callback: sendUnaryData<unknown>,
  handle: (context: CallContext) => Promise<unknown>,
  { method, host, isStream }: Binding & { isStream: boolean },
): Promise<void> {
  const running = new RunningCall(call, method, host, isStream);
  try {
    const answer = await running.guard(handle(running.open()));
    callback(null, answer, running.succeed());
  } catch (error) {
    callback(running.fail(error));
  }
}

async function answerMany(
  call: ServerWritableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>,
  handle: (context: CallContext) => AsyncIterable<unknown>,
  { method, host }: Binding,
): Promise<void> {
  const running = new RunningCall(call, method, host, true);
  try {
    await pumpMessages(handle(running.open()), call, running.signal);
    call.end(running.succeed());
  } catch (error) {
    // Never pipeline() into a call: it destroys the call on error and the caller hears nothing until its deadline.
    call.emit('error', running.fail(error));
  }
}

async function answerIdempotently(
  { responseDeserialize }: AnyMethod,
  { requestId, signal }: CallContext,
  { replies, inFlight }: CallHost,
  run: () => Promise<unknown>,
): Promise<unknown> {
  for (;;) {
    const first = inFlight.get(requestId);
    if (first === undefined) {
      const kept = await replies?.get(requestId);
      if (kept !== undefined) return responseDeserialize(Buffer.from(kept.buffer, kept.byteOffset, kept.byteLength));
      if (!inFlight.has(requestId)) break;
      continue;
    }
    try {
      return await first;
    } catch (error) {
      // The first caller went away and took its call along; this one still waits for an answer.
      if (!isEngineError(error, 'cancelled') || signal.aborted) throw error;
      if (inFlight.get(requestId) === first) inFlight.delete(requestId);
    }
  }
  const running = run();
  inFlight.set(requestId, running);
  try {
    return await running;
  } finally {
    if (inFlight.get(requestId) === running) inFlight.delete(requestId);
  }
}

/** Requests until the half-close; leaving the loop early keeps the call open for its answers. */
async function* requestsOf(
  call: ServerReadableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>,
  signal: AbortSignal,
): AsyncGenerator<never> {
  let wasMarked: boolean;
  try {
    wasMarked = yield* withoutEndMark(call.iterator({ destroyOnReturn: false })) as AsyncGenerator<never, boolean>;
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw error;
  }
  if (signal.aborted) throw signal.reason;
  if (!wasMarked && isEndMarked(call.metadata)) throw cancelled('the caller went away');
}

/** One call from its start to its status. */
export class RunningCall {
  readonly isStream: boolean;
  readonly #call: AnyServerCall;
  readonly #method: AnyMethod;
  readonly #host: CallHost;
  readonly #abort = new AbortController();
  readonly #startedAt = performance.now();
  #requestId = '';
  #ended = false;
  #shutDown = false;

  constructor(call: AnyServerCall, method: AnyMethod, host: CallHost, isStream: boolean) {
    this.#call = call;
    this.#method = method;
    this.#host = host;
    this.isStream = isStream;
    host.running.add(this);
    // grpc-js also says 'cancelled' after a call's normal end.
    (call as EventEmitter).on('cancelled', () => {
      if (!this.#ended) this.#abort.abort(cancelled('the caller went away'));
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  open(): CallContext {
    const { metadata } = this.#call;
    observeClock(metadata, this.#host.clock);
    this.#requestId = requestIdOf(metadata) ?? randomUUID();
    return { requestId: this.#requestId, signal: this.#abort.signal, identity: readIdentity(metadata), metadata };
  }

  /** A unary answer is not waited for beyond shutdown; otherwise the handler alone decides when it ends. */
  async guard<T>(answer: Promise<T>): Promise<T> {
    if (!this.isStream) return answer;
    const gate = new AbortController();
    try {
      return await Promise.race([
        answer,
        once(this.#abort.signal, 'abort', { signal: gate.signal }).then((): never => {
          throw this.#abort.signal.reason;
        }),
      ]);
    } finally {
      gate.abort();
    }
  }

  /** End the call because the server goes away: the caller is told that it may try again. */
  shutDown(): void {
    if (this.#ended) return;
    this.#shutDown = true;
    this.#abort.abort(cancelled('the service is shutting down'));
  }

  succeed(): Metadata {
    this.#end('OK');
    return answerMetadata(this.#host.clock);
  }

  fail(error: unknown): StatusAnswer {
    const { log, clock } = this.#host;
    const kind = isEngineError(error) ? error.kind : 'unknown';
    const fields = { call: this.#method.path, requestId: this.#requestId };
    if (kind === 'unknown') log.error({ ...fields, err: error }, 'call failed by a bug');
    else if (kind === 'internal' && !isOutside(error)) log.error({ ...fields, err: error }, 'call failed');
    else if (kind === 'internal' || kind === 'dataLoss')
      log.info({ ...fields, reason: messageOf(error) }, 'call failed');
    else if (kind === 'cancelled' && !this.isStream) log.info(fields, 'caller went away');
    else log.debug({ ...fields, kind, err: error }, 'call refused');
    this.#end(kind);
    if (this.#shutDown) return plainUnavailable('the service is shutting down');
    return toStatus(error, answerMetadata(clock));
  }

  #end(outcome: string): void {
    this.#ended = true;
    this.#host.running.delete(this);
    this.#host.metrics.observe(this.#method.path, outcome, (performance.now() - this.#startedAt) / 1000);
  }
}

const isOutside = (error: unknown): boolean => isEngineError(error) && error.isOutside;

function readIdentity(metadata: Metadata): CallContext['identity'] {
  try {
    return identityOf(metadata);
  } catch (error) {
    throw invalidArgument('malformed identity header', { cause: error });
  }
}

/** @throws when a handler stands under a name or in a form that its service does not have. */
export function checkHandler(name: string, method: AnyMethod | undefined, kind: string, expected: string): void {
  if (method === undefined) throw internal(`no RPC is called ${name}`);
  if (kind !== expected) throw internal(`${method.path} is ${expected}, its handler is ${kind}`);
}
