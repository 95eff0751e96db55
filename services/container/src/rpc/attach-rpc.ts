import { parseDetachKeys } from '@flotilla/docker-api';
import { conflict, invalidArgument } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import type { ContainerContext } from '../containers/context.js';
import type { Containers } from '../containers/containers.js';
import { containerAttached, containerDetached } from '../containers/events.js';
import { logSinkOf } from '../containers/log-sink.js';
import { isLive } from '../containers/state.js';
import { formatOf } from '../logs/files/log-format.js';
import { endOfLog, positionText } from '../logs/files/position.js';
import { OutputSkip, outputPositionText, parseOutputPosition } from '../logs/output-position.js';
import type { AttachSession } from '../runtime/runtime.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { asBuffer } from './as-buffer.js';

type Response = container.AttachContainerResponse;
type Responses = AsyncGenerator<Response, void, undefined>;

/** How long a session whose output ended waits to learn the exit code. */
const exitCodeWaitMs = 10_000;

/** `AttachContainer`: the streams of a container, over its present run or the next one. */
export async function* attach(
  containers: Containers,
  requests: AsyncIterable<container.AttachContainerRequest>,
  signal: AbortSignal,
): Responses {
  const input = requests[Symbol.asyncIterator]();
  const first = await input.next();
  const frame = first.done === true ? undefined : first.value.frame;
  if (frame?.$case !== 'start') throw invalidArgument('the first message of an attach must be its start');
  const start = frame.value;
  const { context } = containers;
  const record = context.store.resolve(start.name);
  const { id, config } = record.container;
  const exitsBefore = Number(start.resume?.exitSequence ?? record.internals.exitSequence);
  const attached = { containerId: id, tty: config.tty, exitSequence: BigInt(exitsBefore) };
  if (start.resume === undefined) refuseAtRest(record);
  else if (record.internals.exitSequence > exitsBefore) {
    yield { frame: { $case: 'attached', value: attached }, position: start.resume.position };
    yield* restOfRun(context, record, start, exitsBefore);
    return;
  }
  const detachKeys = parseDetachKeys(start.detachKeys);
  const atRest = start.resume?.position ?? restPosition(context, record, start);
  const { tty, openStdin, stdinOnce } = config;
  const session = context.runtime.streams(id, { terminal: tty, openStdin, stdinOnce }).attach({
    stdin: start.stdin,
    stdout: start.stdout,
    stderr: start.stderr,
    logs: start.logs,
    stream: start.stream,
    signal,
    ...(tty ? { detachKeys } : {}),
    ...(start.resume === undefined ? {} : { resumeAt: start.resume.position }),
  });
  const run = { isMissed: false };
  try {
    if (start.resume !== undefined) {
      // The run may have ended already, and its record be about to say so: nothing would come then.
      void context.watchpoints
        .until(id, (now) => (hasEnded(now, exitsBefore) ? true : undefined), signal)
        .then(() => {
          run.isMissed = !session.hasRun;
          if (run.isMissed) session.detach();
        })
        .catch(() => undefined);
    } else if (start.stream) await context.store.commit((batch) => batch.emit(containerAttached(record.container)));
    await session.registered;
    yield {
      frame: { $case: 'attached', value: attached },
      position: start.logs || session.position === '' ? atRest : session.position,
    };
    const taken = new TakenInput();
    // How the input ended is the session's concern: its signal tells it of a caller that went away.
    passInput(containers, id, input, session, taken).catch(() => undefined);
    yield* start.stdin ? outputAndTaken(session, taken) : outputOf(session);
    if (!run.isMissed && (await session.ended) === 'detached') {
      if (start.stream && !signal.aborted) {
        await context.store.commit((batch) => batch.emit(containerDetached(record.container)));
      }
      return;
    }
  } finally {
    session.detach();
  }
  if (run.isMissed) yield* restOfRun(context, record, start, exitsBefore);
  else yield exited(await exitCodeOf(context, id, exitsBefore));
}

/** @throws EngineError `conflict` in dockerd's words. */
function refuseAtRest(record: ContainerRecord): void {
  const { id } = record.container;
  const state = stateOf(record);
  if (state === 'paused') throw conflict(`container ${id} is paused, unpause the container before attach`);
  if (state === 'restarting') throw conflict(`container ${id} is restarting, wait until the container is running`);
}

/** The run ended while nobody could pass its output on: what the log has of it, and how it ended. */
async function* restOfRun(
  context: ContainerContext,
  { container: shown }: ContainerRecord,
  { stdout, stderr, resume }: container.AttachStart,
  exitsBefore: number,
): Responses {
  const from = parseOutputPosition(resume?.position ?? '');
  const { tty: terminal } = shown.config;
  const skip = new OutputSkip(from, terminal);
  const options = { stdout, stderr, terminal, timestamps: false, details: false, follow: false, position: from.log };
  if (stdout || stderr) {
    for await (const { frames, position: log } of context.runtime
      .openLogReader(logSinkOf(shown, context.settings))
      .read(options)) {
      const value = asBuffer(skip.apply(frames));
      const position = outputPositionText({ log, ...skip.left });
      if (value.length > 0) yield { frame: { $case: 'output', value }, position };
    }
  }
  yield exited(await exitCodeOf(context, shown.id, exitsBefore));
}

const exited = (exitCode: number): Response => ({ frame: { $case: 'exited', value: { exitCode } }, position: '' });

const hasEnded = (now: ContainerRecord | undefined, exitsBefore: number): boolean =>
  now === undefined || now.internals.exitSequence > exitsBefore;

async function exitCodeOf({ store, watchpoints }: ContainerContext, id: string, exitsBefore: number): Promise<number> {
  const exitCode = await watchpoints.within(id, exitCodeWaitMs, (now) => {
    if (now === undefined) return store.tombstone(id)?.exitCode ?? 0;
    return hasEnded(now, exitsBefore) || !isLive(stateOf(now)) ? now.container.state.exitCode : undefined;
  });
  return exitCode ?? 0;
}

/** Where the output of the run to come will begin, or that of a client who asked for the log; empty when it cannot be had again. */
function restPosition(
  context: ContainerContext,
  record: ContainerRecord,
  { logs, stream }: container.AttachStart,
): string {
  const sink = logSinkOf(record.container, context.settings);
  if (!stream || sink.driver === 'none') return '';
  if (logs) return outputPositionText({ log: positionText({ inode: '0', offset: 0, time: '' }), stdout: 0, stderr: 0 });
  if (isLive(stateOf(record))) return '';
  return outputPositionText({ log: endOfLog(sink.path, formatOf(sink)), stdout: 0, stderr: 0 });
}

async function* outputOf(session: AttachSession): Responses {
  for await (const output of session.output) {
    yield { frame: { $case: 'output', value: asBuffer(output) }, position: session.position };
  }
}

/** The output, and in between how much of the input has reached the container: what the caller may not send again. */
async function* outputAndTaken(session: AttachSession, taken: TakenInput): Responses {
  const output = session.output[Symbol.asyncIterator]();
  try {
    let next = output.next();
    for (;;) {
      const which = await Promise.race([
        next.then(() => 'output' as const),
        taken.changed.then(() => 'taken' as const),
      ]);
      if (which === 'taken') {
        yield { frame: { $case: 'stdinTaken', value: taken.acknowledge() }, position: '' };
        continue;
      }
      const piece = await next;
      if (piece.done === true) return;
      yield { frame: { $case: 'output', value: asBuffer(piece.value) }, position: session.position };
      next = output.next();
    }
  } finally {
    session.detach();
    await output.return?.();
  }
}

/** Bytes of the caller's that have reached the container. */
class TakenInput {
  #bytes = 0n;
  #onChange: () => void = () => undefined;
  /** Settles when there is more to acknowledge. */
  changed: Promise<void> = new Promise((resolve) => (this.#onChange = resolve));

  add(bytes: number): void {
    this.#bytes += BigInt(bytes);
    this.#onChange();
  }

  acknowledge(): bigint {
    this.changed = new Promise((resolve) => (this.#onChange = resolve));
    return this.#bytes;
  }
}

/** Half-close means the end of standard input; a caller that went away is told to the session by its signal. */
async function passInput(
  containers: Containers,
  id: string,
  input: AsyncIterator<container.AttachContainerRequest>,
  session: AttachSession,
  taken: TakenInput,
): Promise<void> {
  for (;;) {
    const next = await input.next();
    if (next.done === true) break;
    const { frame } = next.value;
    if (frame?.$case === 'stdin') {
      const { length } = frame.value;
      await session.stdin.write(frame.value, () => taken.add(length));
    } else if (frame?.$case === 'resize') {
      // A terminal that is resized at the moment of its end is nobody's concern.
      await containers.resize(id, frame.value.height, frame.value.width).catch(() => undefined);
    }
  }
  session.stdin.end();
}
