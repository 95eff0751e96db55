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
import { AttachReplies } from './attach-replies.js';
import { endOfPastRun, type RunEnd, RunWatch } from './run-end.js';

type Response = container.AttachContainerResponse;
type Responses = AsyncGenerator<Response, void, undefined>;

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
    yield* restOfRun(context, record, start, await endOfPastRun(context, id, exitsBefore));
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
  const run = new RunWatch(context, id, exitsBefore);
  const outcome = { isMissed: false };
  try {
    if (start.resume !== undefined) {
      // The run may have ended already, and its record be about to say so: nothing would come then.
      void run.ended.then(() => {
        outcome.isMissed = !session.hasRun;
        if (outcome.isMissed) session.detach();
      });
    } else if (start.stream) await context.store.commit((batch) => batch.emit(containerAttached(record.container)));
    await session.registered;
    yield {
      frame: { $case: 'attached', value: attached },
      position: start.logs || session.position === '' ? atRest : session.position,
    };
    const replies = new AttachReplies(session);
    // How the input ended is the session's concern: its signal tells it of a caller that went away.
    passInput(containers, id, input, session, replies).catch(() => undefined);
    yield* replies.messages();
    if (!outcome.isMissed && (await session.ended) === 'detached') {
      if (start.stream && !signal.aborted) {
        await context.store.commit((batch) => batch.emit(containerDetached(record.container)));
      }
      return;
    }
    if (outcome.isMissed) yield* restOfRun(context, record, start, run.end);
    else yield exited(await run.exitCode());
  } finally {
    run.close();
    session.detach();
  }
}

/** @throws EngineError `conflict` in dockerd's words. */
function refuseAtRest(record: ContainerRecord): void {
  const { id } = record.container;
  const state = stateOf(record);
  if (state === 'paused') throw conflict(`container ${id} is paused, unpause the container before attach`);
  if (state === 'restarting') throw conflict(`container ${id} is restarting, wait until the container is running`);
}

/** The run ended while nobody could pass its output on: what the log has of it, and how it ended. Without an end the container is gone. */
async function* restOfRun(
  context: ContainerContext,
  { container: shown }: ContainerRecord,
  { stdout, stderr, resume }: container.AttachStart,
  end: RunEnd | undefined,
): Responses {
  const from = parseOutputPosition(resume?.position ?? '');
  const { tty: terminal } = shown.config;
  const skip = new OutputSkip(from, terminal);
  const range = { position: from.log, ...(end?.logEnd === undefined ? {} : { stopAt: end.logEnd }) };
  const options = { stdout, stderr, terminal, timestamps: false, details: false, follow: false, ...range };
  if (stdout || stderr) {
    for await (const { frames, position: log } of context.runtime
      .openLogReader(logSinkOf(shown, context.settings))
      .read(options)) {
      const value = asBuffer(skip.apply(frames));
      const position = outputPositionText({ log, ...skip.left });
      if (value.length > 0) yield { frame: { $case: 'output', value }, position };
    }
  }
  yield exited(end?.exitCode ?? context.store.tombstone(shown.id)?.exitCode ?? 0);
}

const exited = (exitCode: number): Response => ({ frame: { $case: 'exited', value: { exitCode } }, position: '' });

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

/** Half-close means the end of standard input; a caller that went away is told to the session by its signal. */
async function passInput(
  containers: Containers,
  id: string,
  input: AsyncIterator<container.AttachContainerRequest>,
  session: AttachSession,
  replies: AttachReplies,
): Promise<void> {
  for (;;) {
    const next = await input.next();
    if (next.done === true) break;
    const { frame } = next.value;
    if (frame?.$case === 'stdin') {
      const { length } = frame.value;
      await session.stdin.write(frame.value, () => replies.addTaken(length));
    } else if (frame?.$case === 'resize') {
      // A terminal that is resized at the moment of its end is nobody's concern.
      await containers.resize(id, frame.value.height, frame.value.width).catch(() => undefined);
    }
  }
  session.stdin.end();
}
