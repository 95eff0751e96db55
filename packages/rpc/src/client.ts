import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { Client, connectivityState, credentials as grpcCredentials } from '@grpc/grpc-js';
import type {
  ChannelCredentials,
  ClientDuplexStream,
  ClientReadableStream,
  ClientWritableStream,
  Metadata,
} from '@grpc/grpc-js';
import { cancelled, messageOf, unavailable } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { grpcTarget, isUnixAddress } from './address.js';
import { callMetadata, observeClock } from './call-metadata.js';
import type { Clock } from './call-metadata.js';
import { channelLimits, reconnectOptions } from './channel-options.js';
import type { Identity } from './identity.js';
import { pumpMessages } from './message-pump.js';
import { describePath, kindOf } from './method-types.js';
import type { AnyMethod, AnyServiceDefinition, RequestOf, ResponseOf } from './method-types.js';
import { fromServiceError } from './status.js';
import type { CallFailure } from './status.js';
import { announceEndMark, endOfRequests, markingSerializer } from './stream-end.js';

export interface ConnectOptions {
  readonly log: Logger;
  /** Needed for TCP with TLS (`clientCredentials`); unix sockets and loopback need none. */
  readonly credentials?: ChannelCredentials;
  /** Moved past the callee's clock by every answer. */
  readonly clock?: Clock | undefined;
}

export interface StreamOptions {
  /** Of the whole call; none when absent. */
  readonly deadlineMs?: number;
  /** Made when absent. One id belongs to one call and its retries: never use it for two different calls of one service. */
  readonly requestId?: string;
  /** Cancels the call: it then rejects with `cancelled`. */
  readonly signal?: AbortSignal | undefined;
  /** How long a service that is down is waited for; 10 s when absent, 0 fails at once. */
  readonly retryUnavailableMs?: number;
  readonly identity?: Identity | undefined;
}

export interface ServerStreamOptions extends StreamOptions {
  /** How often a stream that has begun may begin anew when the service dies; never when absent. Its messages then come again. */
  readonly repeats?: number;
}

export interface UnaryCallOptions extends StreamOptions {
  /** Of the call with all its retries. */
  readonly deadlineMs: number;
}

type ClientMethod<M extends AnyMethod> = M extends { requestStream: true; responseStream: true }
  ? (requests: AsyncIterable<RequestOf<M>>, options?: StreamOptions) => AsyncGenerator<ResponseOf<M>, void, undefined>
  : M extends { requestStream: true }
    ? (requests: AsyncIterable<RequestOf<M>>, options?: StreamOptions) => Promise<ResponseOf<M>>
    : M extends { responseStream: true }
      ? (request: RequestOf<M>, options?: ServerStreamOptions) => AsyncGenerator<ResponseOf<M>, void, undefined>
      : (request: RequestOf<M>, options: UnaryCallOptions) => Promise<ResponseOf<M>>;

/** RPC name to function. Failed calls reject with the `EngineError` that the handler threw. */
export type TypedClient<D extends AnyServiceDefinition> = { readonly [K in keyof D]: ClientMethod<D[K]> } & {
  /** Close the connection; running calls fail with `unavailable`. */
  close(): void;
};

/**
 * A client of one service. No connection is made before the first call, and a lost one comes back by itself.
 *
 * Takes a generated service definition (`VolumeServiceService`) or client constructor (`VolumeServiceClient`).
 */
export function connect<D extends AnyServiceDefinition>(
  service: D | { readonly service: D },
  address: string,
  options: ConnectOptions,
): TypedClient<D> {
  const definition = (typeof service === 'function' ? (service as { service: D }).service : service) as D;
  const connection = new Connection(address, options);
  const methods: Record<string, unknown> = { close: () => connection.close() };
  for (const [name, method] of Object.entries(definition)) methods[name] = connection.methodOf(method);
  return methods as TypedClient<D>;
}

const firstRetryDelayMs = 10;
const lastRetryDelayMs = 50;
const socketPollMs = 10;

class Connection {
  readonly #client: Client;
  readonly #clock: Clock | undefined;
  readonly #log: Logger;
  readonly #socketPath: string | undefined;

  constructor(address: string, { credentials, clock, log }: ConnectOptions) {
    const target = grpcTarget(address);
    const keepalive = isUnixAddress(address)
      ? {}
      : { 'grpc.keepalive_time_ms': 20_000, 'grpc.keepalive_timeout_ms': 10_000 };
    this.#client = new Client(target, credentials ?? grpcCredentials.createInsecure(), {
      ...channelLimits,
      ...reconnectOptions,
      ...keepalive,
    });
    this.#socketPath = isUnixAddress(address) ? target.slice('unix:'.length) : undefined;
    this.#clock = clock;
    this.#log = log;
  }

  close(): void {
    this.#client.close();
  }

  methodOf(method: AnyMethod): unknown {
    switch (kindOf(method)) {
      case 'unary':
        return (request: unknown, options: UnaryCallOptions) => this.#unary(method, request, options);
      case 'serverStream':
        return (request: unknown, options: ServerStreamOptions = {}) => this.#serverStream(method, request, options);
      case 'clientStream':
        return (requests: AsyncIterable<unknown>, options: StreamOptions = {}) =>
          this.#clientStream(method, requests, options);
      case 'bidi':
        return (requests: AsyncIterable<unknown>, options: StreamOptions = {}) => this.#bidi(method, requests, options);
    }
  }

  async #unary(method: AnyMethod, request: unknown, options: UnaryCallOptions): Promise<unknown> {
    const attempts = new Attempts(method, options, this.#log);
    for (;;) {
      await this.#socketThere(attempts);
      const result = await this.#unaryOnce(method, request, attempts);
      if (!('failure' in result)) return result.value;
      await this.#retryOrThrow(attempts, result.failure);
    }
  }

  #unaryOnce(
    method: AnyMethod,
    request: unknown,
    attempts: Attempts,
  ): Promise<{ value: unknown } | { failure: CallFailure }> {
    return new Promise((resolve) => {
      const { signal } = attempts;
      if (signal?.aborted === true) {
        resolve({ failure: attempts.cancelledByCaller() });
        return;
      }
      const cancel = () => call.cancel();
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize as (value: unknown) => Buffer,
        method.responseDeserialize,
        request,
        callMetadata(attempts.requestId, this.#clock, attempts.identity),
        attempts.grpcOptions(),
        (error, value) => {
          signal?.removeEventListener('abort', cancel);
          resolve(error === null ? { value } : { failure: attempts.failureOf(error) });
        },
      );
      call.on('status', ({ metadata }) => observeClock(metadata, this.#clock));
      signal?.addEventListener('abort', cancel, { once: true });
    });
  }

  async *#serverStream(
    method: AnyMethod,
    request: unknown,
    options: ServerStreamOptions,
  ): AsyncGenerator<unknown, void, undefined> {
    let attempts = new Attempts(method, options, this.#log);
    let repeats = options.repeats ?? 0;
    for (;;) {
      await this.#socketThere(attempts);
      attempts.throwIfCancelled();
      const call = this.#client.makeServerStreamRequest(
        method.path,
        method.requestSerialize as (value: unknown) => Buffer,
        method.responseDeserialize,
        request,
        callMetadata(attempts.requestId, this.#clock, attempts.identity),
        attempts.grpcOptions(),
      );
      let begun = false;
      try {
        for await (const message of this.#messagesOf(call, attempts)) {
          begun = true;
          yield message;
        }
        return;
      } catch (error) {
        if (!(error instanceof StreamFailure)) throw error;
        if (begun) {
          if (repeats-- <= 0) throw error.failure.error;
          attempts = new Attempts(method, { ...options, requestId: attempts.requestId }, this.#log);
        }
        await this.#retryOrThrow(attempts, error.failure);
      }
    }
  }

  async #clientStream(method: AnyMethod, requests: AsyncIterable<unknown>, options: StreamOptions): Promise<unknown> {
    const attempts = new Attempts(method, options, this.#log);
    await this.#ready(attempts);
    const written = new AbortController();
    const answer = new Promise<unknown>((resolve, reject) => {
      const call = this.#client.makeClientStreamRequest(
        method.path,
        markingSerializer(method.requestSerialize),
        method.responseDeserialize,
        this.#markedMetadata(attempts),
        attempts.grpcOptions(),
        (error, value) => {
          written.abort(callEnded);
          if (error === null) resolve(value);
          else reject(attempts.failureOf(error).error);
        },
      );
      call.on('status', ({ metadata }) => observeClock(metadata, this.#clock));
      attempts.cancelWith(call, written.signal);
      this.#writeAll(requests, call, written.signal, reject);
    });
    return answer;
  }

  async *#bidi(
    method: AnyMethod,
    requests: AsyncIterable<unknown>,
    options: StreamOptions,
  ): AsyncGenerator<unknown, void, undefined> {
    const attempts = new Attempts(method, options, this.#log);
    await this.#ready(attempts);
    const call = this.#client.makeBidiStreamRequest(
      method.path,
      markingSerializer(method.requestSerialize),
      method.responseDeserialize,
      this.#markedMetadata(attempts),
      attempts.grpcOptions(),
    );
    const written = new AbortController();
    let writeFailure: { error: unknown } | undefined;
    this.#writeAll(requests, call, written.signal, (error) => (writeFailure = { error }));
    try {
      yield* this.#messagesOf(call, attempts);
    } catch (error) {
      if (writeFailure !== undefined) throw writeFailure.error;
      throw error instanceof StreamFailure ? error.failure.error : error;
    } finally {
      written.abort(callEnded);
    }
  }

  #markedMetadata({ requestId, identity }: Attempts): Metadata {
    const metadata = callMetadata(requestId, this.#clock, identity);
    announceEndMark(metadata);
    return metadata;
  }

  /** Write the requests and half-close. When the source itself fails, the call is cancelled and `onSourceError` told. */
  #writeAll(
    requests: AsyncIterable<unknown>,
    call: ClientWritableStream<unknown> | ClientDuplexStream<unknown, unknown>,
    ended: AbortSignal,
    onSourceError: (error: unknown) => void,
  ): void {
    pumpMessages(requests, call, ended).then(
      () => {
        call.write(endOfRequests);
        call.end();
      },
      (error: unknown) => {
        if (error === callEnded) return;
        onSourceError(error);
        call.cancel();
      },
    );
  }

  /** The messages of a call. Ending the loop early cancels the call. */
  async *#messagesOf(
    call: ClientReadableStream<unknown> | ClientDuplexStream<unknown, unknown>,
    attempts: Attempts,
  ): AsyncGenerator<unknown, void, undefined> {
    const ended = new AbortController();
    attempts.cancelWith(call, ended.signal);
    call.on('status', ({ metadata }) => observeClock(metadata, this.#clock));
    // After an early end the cancelled call still says so; nobody listens any more.
    call.on('error', () => undefined);
    try {
      for await (const message of call) yield message as unknown;
    } catch (error) {
      throw new StreamFailure(attempts.failureOf(error));
    } finally {
      ended.abort();
      call.cancel();
    }
  }

  /** Wait for the connection: a stream whose input has begun cannot be repeated. */
  async #ready(attempts: Attempts): Promise<void> {
    const channel = this.#client.getChannel();
    for (;;) {
      await this.#socketThere(attempts);
      attempts.throwIfCancelled();
      if (channel.getConnectivityState(true) === connectivityState.READY) return;
      if (!attempts.mayWait()) throw attempts.notAvailable();
      await attempts.pauseLonger();
    }
  }

  /** Wait for the socket file of a service that has not started yet: looking is cheaper than connecting. */
  async #socketThere(attempts: Attempts): Promise<void> {
    while (this.#isSocketMissing()) {
      attempts.throwIfCancelled();
      if (!attempts.mayWait(socketPollMs)) throw attempts.notAvailable();
      await attempts.pause(socketPollMs);
    }
  }

  #isSocketMissing(): boolean {
    if (this.#socketPath === undefined) return false;
    const isConnected = this.#client.getChannel().getConnectivityState(false) === connectivityState.READY;
    return !isConnected && !existsSync(this.#socketPath);
  }

  async #retryOrThrow(attempts: Attempts, { error, fromService }: CallFailure): Promise<void> {
    // gRPC words a connection that broke during the call in several ways; it is not ready afterwards.
    const broken =
      error.kind === 'unavailable' ||
      error.kind === 'cancelled' ||
      (error.kind === 'internal' && this.#client.getChannel().getConnectivityState(false) !== connectivityState.READY);
    if (fromService || attempts.isCancelled() || !broken) throw error;
    if (!attempts.mayWait()) throw error.kind === 'unavailable' ? error : attempts.notAvailable(error);
    await attempts.pauseLonger();
    attempts.throwIfCancelled();
  }
}

const callEnded = new Error('the call has ended');

/** Carries a call's failure through a generator without mixing it with what the consumer throws into it. */
class StreamFailure extends Error {
  readonly failure: CallFailure;

  constructor(failure: CallFailure) {
    super(failure.error.message);
    this.failure = failure;
  }
}

/** One call with its retries: same request id, one deadline over all. */
class Attempts {
  readonly requestId: string;
  readonly signal: AbortSignal | undefined;
  readonly identity: Identity | undefined;
  readonly #method: AnyMethod;
  readonly #log: Logger;
  readonly #deadlineMs: number | undefined;
  readonly #deadline: number;
  readonly #retryUntil: number;
  #delayMs = firstRetryDelayMs;

  constructor(method: AnyMethod, options: StreamOptions, log: Logger) {
    const now = Date.now();
    this.requestId = options.requestId ?? randomUUID();
    this.signal = options.signal;
    this.identity = options.identity;
    this.#method = method;
    this.#log = log;
    this.#deadlineMs = options.deadlineMs;
    this.#deadline = options.deadlineMs === undefined ? Number.POSITIVE_INFINITY : now + options.deadlineMs;
    this.#retryUntil = Math.min(now + (options.retryUnavailableMs ?? 10_000), this.#deadline);
  }

  grpcOptions(): { deadline?: number } {
    return Number.isFinite(this.#deadline) ? { deadline: this.#deadline } : {};
  }

  failureOf(error: unknown): CallFailure {
    if (this.isCancelled()) return this.cancelledByCaller();
    const failure = fromServiceError(error, this.#method.path, this.#deadlineMs);
    // Nobody here cancelled it: the connection ended under the call.
    if (!failure.fromService && failure.error.kind === 'cancelled')
      return { error: this.notAvailable(error), fromService: false };
    return failure;
  }

  isCancelled(): boolean {
    return this.signal?.aborted === true;
  }

  cancelledByCaller(): CallFailure {
    const reason: unknown = this.signal?.reason;
    return { error: cancelled(`call cancelled: ${messageOf(reason)}`, { cause: reason }), fromService: false };
  }

  throwIfCancelled(): void {
    if (this.isCancelled()) throw this.cancelledByCaller().error;
  }

  cancelWith(call: { cancel(): void }, ended: AbortSignal): void {
    if (this.isCancelled()) call.cancel();
    else this.signal?.addEventListener('abort', () => call.cancel(), { once: true, signal: ended });
  }

  notAvailable(cause?: unknown): EngineError {
    const { area } = describePath(this.#method.path);
    return unavailable(`the ${area} service is not available`, { cause });
  }

  mayWait(delayMs = this.#delayMs): boolean {
    return Date.now() + delayMs < this.#retryUntil;
  }

  /** Each time longer than the last. */
  async pauseLonger(): Promise<void> {
    this.#log.debug({ call: this.#method.path, requestId: this.requestId }, 'service not available, trying again');
    const delayMs = this.#delayMs;
    this.#delayMs = Math.min(delayMs * 2, lastRetryDelayMs);
    await this.pause(delayMs);
  }

  async pause(delayMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        this.signal?.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, delayMs);
      this.signal?.addEventListener('abort', done, { once: true });
    });
  }
}
