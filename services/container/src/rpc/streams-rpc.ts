import { invalidArgument, unimplemented } from '@flotilla/errors';
import { container, type Timestamp, timestampToNs } from '@flotilla/proto';
import { bidi, type Implementation, isVisible, serverStream, watch } from '@flotilla/rpc';
import type { Containers } from '../containers/containers.js';
import { logSinkOf } from '../containers/log-sink.js';
import type { WaitCondition } from '../containers/waits.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { asBuffer } from './as-buffer.js';
import { attach } from './attach-rpc.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

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
    attached: { containerId: shown.id, tty: shown.config.tty, exitSequence: 0n },
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
