import { internal, isEngineError, notFound } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import type { ClientStream } from './client-stream.js';
import type { GatewayContext } from './gateway-context.js';
import { resumed } from './resumed-stream.js';

type Request = container.AttachContainerRequest;
type Response = container.AttachContainerResponse;

/**
 * The messages of an attach that outlives the container service: after its death the output goes on where the client has it, with what the log has of
 * the time between. Input is taken from the client when somebody is there to take it; what was sent and has not reached the container for certain when
 * the service dies ends the stream, for it might come twice.
 *
 * @throws EngineError what the call fails with; `internal` with a sentence for the user when it cannot go on
 */
export function resumedAttach(
  { peers }: GatewayContext,
  call: ApiCall,
  start: container.AttachStart,
  client: ClientStream,
): AsyncGenerator<Response> {
  const input = start.stdin ? new ClientInput(client.input()) : undefined;
  let name = start.name;
  let resume: container.AttachResume | undefined;
  async function* open(): AsyncGenerator<Response> {
    if (resume !== undefined && (resume.position === '' || input?.isSettled === false)) throw brokenOff();
    const going = deferred<boolean>();
    const again = resume === undefined ? {} : { name, logs: false, resume };
    const requests = requestsOf({ ...start, ...again }, input, going.promise);
    try {
      for await (const message of peers.container.attachContainer(requests, { signal: call.signal })) {
        going.resolve(true);
        const { frame, position } = message;
        if (frame?.$case === 'stdinTaken') input?.noteTaken(Number(frame.value));
        else if (frame?.$case !== 'attached') {
          yield message;
          // The client has it now.
          if (frame?.$case === 'output' && resume !== undefined) resume = { ...resume, position };
        } else if (resume === undefined) {
          yield message;
          name = frame.value.containerId;
          resume = { position, exitSequence: frame.value.exitSequence };
        }
      }
    } catch (error) {
      if (resume !== undefined && isEngineError(error, 'notFound')) throw lostWithContainer(error);
      throw error;
    } finally {
      going.resolve(false);
      input?.letGo();
    }
  }
  return resumed(open, call.signal);
}

async function* requestsOf(
  start: container.AttachStart,
  input: ClientInput | undefined,
  isAccepted: Promise<boolean>,
): AsyncGenerator<Request> {
  yield { frame: { $case: 'start', value: start } };
  // What is taken from the client before somebody has accepted it would be lost with a service that dies.
  if (input === undefined || !(await isAccepted)) return;
  for (let chunk = await input.next(); chunk !== undefined; chunk = await input.next()) {
    yield { frame: { $case: 'stdin', value: chunk } };
  }
}

const brokenOff = (): Error =>
  internal('the stream broke off because the container service restarted; the container goes on, attach again');

const lostWithContainer = (cause: unknown): Error =>
  notFound('the end of the output is lost: the container was removed while the container service restarted', { cause });

/** What the client sends, over all calls that it goes to. */
class ClientInput {
  readonly #source: AsyncIterator<Buffer>;
  /** Asked of the client and not given to a call yet. */
  #pending: Promise<IteratorResult<Buffer>> | undefined;
  #letGo = deferred<undefined>();
  #sent = 0;
  #taken = 0;
  /** Sent before the present call. */
  #before = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Whether all that was sent has reached the container. */
  get isSettled(): boolean {
    return this.#sent === this.#taken;
  }

  noteTaken(inThisCall: number): void {
    this.#taken = this.#before + inThisCall;
  }

  /** Undefined: the client has closed its side, or the call is over. */
  async next(): Promise<Buffer | undefined> {
    const pending = (this.#pending ??= this.#ask());
    const next = await Promise.race([pending, this.#letGo.promise]);
    if (next === undefined || next.done === true) return undefined;
    this.#pending = undefined;
    this.#sent += next.value.length;
    return next.value;
  }

  #ask(): Promise<IteratorResult<Buffer>> {
    const asked = this.#source.next();
    // Between two calls nobody waits for it; the next one hears of it.
    asked.catch(() => undefined);
    return asked;
  }

  /** The call is over: what the client sends from now on is for the next one. */
  letGo(): void {
    this.#letGo.resolve(undefined);
    this.#letGo = deferred();
    this.#before = this.#sent;
  }
}

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((done) => (resolve = done));
  return { promise, resolve };
}
