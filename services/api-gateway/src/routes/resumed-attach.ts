import { internal, isEngineError, notFound } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import { ClientInput } from './client-input.js';
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
    if (resume !== undefined && (resume.position === '' || input?.isSettled === false)) {
      // The client does not wait for the service, which may be gone for a while.
      if (start.stdin) void leave(peers.container, { ...start, name, logs: false, resume });
      throw brokenOff();
    }
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

/** How long the container service may take to hear of it. */
const leaveMs = 10_000;

/** Let the container know that the client which had its input is gone: with `StdinOnce` it ends, and the container does not wait for what nobody can give it. */
async function leave(service: GatewayContext['peers']['container'], start: container.AttachStart): Promise<void> {
  const requests = requestsOf({ ...start, stdout: false, stderr: false }, undefined, Promise.resolve(true));
  try {
    for await (const { frame } of service.attachContainer(requests, { signal: AbortSignal.timeout(leaveMs) })) {
      if (frame?.$case === 'attached') return;
    }
  } catch {
    // The container has ended, or the service is gone again: the client hears of the first break.
  }
}

async function* requestsOf(
  start: container.AttachStart,
  input: ClientInput | undefined,
  isAccepted: Promise<boolean>,
): AsyncGenerator<Request> {
  const chunks = input?.chunks();
  yield { frame: { $case: 'start', value: start } };
  // What is taken from the client before somebody has accepted it would be lost with a service that dies.
  if (chunks === undefined || !(await isAccepted)) return;
  for await (const value of chunks) yield { frame: { $case: 'stdin', value } };
}

const brokenOff = (): Error =>
  internal('the stream broke off because the container service restarted; the container goes on, attach again');

const lostWithContainer = (cause: unknown): Error =>
  notFound('the end of the output is lost: the container was removed while the container service restarted', { cause });

interface Deferred<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

function deferred<T>(): Deferred<T> {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((done) => (resolve = done));
  return { promise, resolve };
}
