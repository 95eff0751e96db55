import { StdStream, encodeFrame } from '@flotilla/docker-api';
import { invalidArgument } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import { bidi, type Implementation, unary } from '@flotilla/rpc';
import type { Execs, StartedExec } from '../execs/execs.js';
import { asBuffer } from './as-buffer.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

/** Further processes of containers. */
export const execRpc = (execs: Execs): Handlers => ({
  createExec: unary(async ({ container: name, config }: container.CreateExecRequest) => {
    if (config === undefined) throw invalidArgument('No exec command specified');
    return execs.create(name, config);
  }),

  startExec: bidi((requests: AsyncIterable<container.StartExecRequest>, { signal }) => start(execs, requests, signal)),

  resizeExec: unary(async ({ id, height, width }: container.ResizeExecRequest) => {
    await execs.resize(id, height, width);
    return {};
  }),

  getExec: unary(({ id }: container.GetExecRequest) => {
    const { record, pid } = execs.get(id);
    return Promise.resolve({
      id: record.id,
      containerId: record.containerId,
      running: record.state === 'running',
      ...(record.state === 'ended' ? { exitCode: record.exitCode } : {}),
      pid,
      config: record.config,
      canRemove: record.state === 'ended',
    });
  }),
});

async function* start(
  execs: Execs,
  requests: AsyncIterable<container.StartExecRequest>,
  signal: AbortSignal,
): AsyncGenerator<container.StartExecResponse, void, undefined> {
  const input = requests[Symbol.asyncIterator]();
  const first = await input.next();
  const frame = first.done === true ? undefined : first.value.frame;
  if (frame?.$case !== 'start') throw invalidArgument('the first message of an exec must be its start');
  const { id, detach, consoleSize } = frame.value;
  const { containerId, config } = execs.startable(id);
  const { tty } = config;
  const attached = { frame: { $case: 'attached', value: { containerId, tty, exitSequence: 0n } } } as const;
  // Long before any output, as with dockerd: docker-py loses what it reads together with the reply's head.
  if (!detach) yield attached;
  const started = await execs.start(id, { detach, consoleSize, signal });
  try {
    if (detach) {
      yield attached;
      return;
    }
    if (started.failure !== undefined) {
      const line = Buffer.from(`${started.failure}\r\n`);
      yield { frame: { $case: 'output', value: tty ? line : encodeFrame(StdStream.stdout, line) } };
    }
    if (started.session !== undefined) {
      // How the input ended is the session's concern: its signal tells it of a caller that went away.
      passInput(execs, started, input).catch(() => undefined);
      for await (const output of started.session.output) {
        yield { frame: { $case: 'output', value: asBuffer(output) } };
      }
      if ((await started.session.ended) === 'detached') {
        if (!signal.aborted) await execs.noteDetached(started.record);
        return;
      }
    }
    const { exitCode } = await started.ended;
    yield { frame: { $case: 'exited', value: { exitCode } } };
  } finally {
    started.session?.detach();
  }
}

async function passInput(
  execs: Execs,
  { record, session }: StartedExec,
  input: AsyncIterator<container.StartExecRequest>,
): Promise<void> {
  for (;;) {
    const next = await input.next();
    if (next.done === true) break;
    const { frame } = next.value;
    if (frame?.$case === 'stdin') await session?.stdin.write(frame.value);
    else if (frame?.$case === 'resize') {
      // A terminal that is resized at the moment of its end is nobody's concern.
      await execs.resize(record.id, frame.value.height, frame.value.width).catch(() => undefined);
    }
  }
  session?.stdin.end();
}
