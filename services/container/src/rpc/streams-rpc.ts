import { conflict, invalidArgument, unimplemented } from '@flotilla/errors';
import { parseDetachKeys } from '@flotilla/docker-api';
import { container, type Timestamp, timestampToNs } from '@flotilla/proto';
import { bidi, type Implementation, isVisible, serverStream, watch } from '@flotilla/rpc';
import type { Containers } from '../containers/containers.js';
import { containerAttached, containerDetached } from '../containers/events.js';
import { logSinkOf } from '../containers/log-sink.js';
import { isLive } from '../containers/state.js';
import type { WaitCondition } from '../containers/waits.js';
import type { AttachSession } from '../runtime/runtime.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { asBuffer } from './as-buffer.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;
type AttachFrame = container.AttachContainerRequest['frame'];

/** How long a session whose output ended waits to learn the exit code. */
const exitCodeWaitMs = 10_000;

/** Everything that goes on for longer than one answer. */
export const streamsRpc = (containers: Containers): Handlers => ({
  watchContainers: serverStream((_, { identity, signal }) => {
    const shown = (record: ContainerRecord): container.Container | undefined =>
      stateOf(record) !== 'creating' && isVisible(record.container.config.labels, identity)
        ? record.container
        : undefined;
    const { store } = containers.context;
    const source = {
      snapshot: () => ({ revision: store.revision, records: store.all() }),
      subscribe: (listener: Parameters<typeof store.onChange>[0]) => store.onChange(listener),
    };
    return watch(source, shown, signal);
  }),
  waitContainer: serverStream((request, { signal }) => wait(containers, request, signal)),
  streamLogs: serverStream((request, { signal }) => streamLogs(containers, request, signal)),
  attachContainer: bidi((requests, { signal }) => attach(containers, requests, signal)),
});

async function* wait(
  containers: Containers,
  { name, condition, resumeExitSequence }: container.WaitContainerRequest,
  signal: AbortSignal,
): AsyncGenerator<container.WaitContainerResponse, void, undefined> {
  // On the wire 0 means a new wait, hence one more than the number of exits.
  const resumeAfter = resumeExitSequence === 0n ? undefined : Number(resumeExitSequence) - 1;
  const begun = containers.wait(name, conditionOf(condition), resumeAfter, signal);
  // Seen only when the caller has gone before the outcome is asked for.
  begun.outcome.catch(() => undefined);
  const waiting = { containerId: begun.containerId, exitSequence: BigInt(begun.exitSequence + 1) };
  yield { event: { $case: 'waiting', value: waiting } };
  const { exitCode, error } = await begun.outcome;
  yield { event: { $case: 'result', value: { exitCode: BigInt(exitCode), error } } };
}

function conditionOf(condition: container.WaitCondition): WaitCondition {
  switch (condition) {
    case container.WaitCondition.NEXT_EXIT:
      return 'next-exit';
    case container.WaitCondition.REMOVED:
      return 'removed';
    default:
      return 'not-running';
  }
}

async function* streamLogs(
  { context }: Containers,
  request: container.StreamLogsRequest,
  signal: AbortSignal,
): AsyncGenerator<container.StreamLogsResponse, void, undefined> {
  const { container: shown } = context.store.resolve(request.name);
  if (!request.stdout && !request.stderr) throw invalidArgument('You must choose at least one stream');
  const sink = logSinkOf(shown, context.settings);
  if (sink.isReadable === false) throw unimplemented('configured logging driver does not support reading');
  yield {
    output: Buffer.alloc(0),
    position: request.position,
    attached: { containerId: shown.id, tty: shown.config.tty },
  };
  const time = (timestamp: Timestamp | undefined): bigint | undefined =>
    timestamp === undefined ? undefined : timestampToNs(timestamp);
  const since = time(request.since);
  const until = time(request.until);
  const tail = request.tail === undefined || request.tail < 0n ? undefined : Number(request.tail);
  const batches = context.runtime.openLogReader(sink).read({
    stdout: request.stdout,
    stderr: request.stderr,
    terminal: shown.config.tty,
    timestamps: request.timestamps,
    details: request.details,
    follow: request.follow,
    signal,
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(tail === undefined || request.position !== '' ? {} : { tail }),
    ...(request.position === '' ? {} : { position: request.position }),
  });
  for await (const { frames, position } of batches) yield { output: asBuffer(frames), position };
}

async function* attach(
  containers: Containers,
  requests: AsyncIterable<container.AttachContainerRequest>,
  signal: AbortSignal,
): AsyncGenerator<container.AttachContainerResponse, void, undefined> {
  const input = requests[Symbol.asyncIterator]();
  const first = await input.next();
  const frame: AttachFrame = first.done === true ? undefined : first.value.frame;
  if (frame?.$case !== 'start') throw invalidArgument('the first message of an attach must be its start');
  const start = frame.value;
  const { context } = containers;
  const record = context.store.resolve(start.name);
  const { id, config } = record.container;
  const state = stateOf(record);
  if (state === 'paused') throw conflict(`container ${id} is paused, unpause the container before attach`);
  if (state === 'restarting') throw conflict(`container ${id} is restarting, wait until the container is running`);
  const detachKeys = parseDetachKeys(start.detachKeys);
  const { tty, openStdin, stdinOnce } = config;
  const session = context.runtime.streams(id, { terminal: tty, openStdin, stdinOnce }).attach({
    stdin: start.stdin,
    stdout: start.stdout,
    stderr: start.stderr,
    logs: start.logs,
    stream: start.stream,
    signal,
    ...(tty ? { detachKeys } : {}),
  });
  const exitsBefore = record.internals.exitSequence;
  try {
    if (start.stream) await context.store.commit((batch) => batch.emit(containerAttached(record.container)));
    await session.registered;
    yield { frame: { $case: 'attached', value: { containerId: id, tty } } };
    // How the input ended is the session's concern: its signal tells it of a caller that went away.
    passInput(containers, id, input, session).catch(() => undefined);
    for await (const output of session.output) yield { frame: { $case: 'output', value: asBuffer(output) } };
    if ((await session.ended) === 'detached') {
      if (start.stream && !signal.aborted) {
        await context.store.commit((batch) => batch.emit(containerDetached(record.container)));
      }
      return;
    }
  } finally {
    session.detach();
  }
  const exitCode = await context.watchpoints.within(id, exitCodeWaitMs, (now) => {
    if (now === undefined) return context.store.tombstone(id)?.exitCode ?? 0;
    return now.internals.exitSequence > exitsBefore || !isLive(stateOf(now)) ? now.container.state.exitCode : undefined;
  });
  yield { frame: { $case: 'exited', value: { exitCode: exitCode ?? 0 } } };
}

/** Half-close means the end of standard input; a caller that went away is told to the session by its signal. */
async function passInput(
  containers: Containers,
  id: string,
  input: AsyncIterator<container.AttachContainerRequest>,
  session: AttachSession,
): Promise<void> {
  for (;;) {
    const next = await input.next();
    if (next.done === true) break;
    const { frame } = next.value;
    if (frame?.$case === 'stdin') await session.stdin.write(frame.value);
    else if (frame?.$case === 'resize') {
      // A terminal that is resized at the moment of its end is nobody's concern.
      await containers.resize(id, frame.value.height, frame.value.width).catch(() => undefined);
    }
  }
  session.stdin.end();
}
