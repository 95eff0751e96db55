import { conflict, notFound } from '@flotilla/errors';
import type { ContainerContext } from '../containers/context.js';
import { logSinkOf } from '../containers/log-sink.js';
import { isLive } from '../containers/state.js';
import { formatOf } from '../logs/files/log-format.js';
import { endOfLog } from '../logs/files/position.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';

/** How long a session whose output ended waits to learn the exit code. */
const exitCodeWaitMs = 10_000;

/** How a run ended. */
export interface RunEnd {
  readonly exitCode: number;
  /** Where its output ends in the log; undefined when that cannot be read. */
  readonly logEnd: string | undefined;
}

/** Learns how the run after so many exits ends when that is recorded: later a next run may have taken its place in record and log. */
export class RunWatch {
  readonly #context: ContainerContext;
  readonly #id: string;
  readonly #exitsBefore: number;
  readonly #closing = new AbortController();
  #end: RunEnd | undefined;
  /** Settles when the run has ended, or the container is gone; never, if the watch is closed before. */
  readonly ended: Promise<void>;

  constructor(context: ContainerContext, id: string, exitsBefore: number) {
    this.#context = context;
    this.#id = id;
    this.#exitsBefore = exitsBefore;
    this.ended = new Promise((resolve) => {
      context.watchpoints
        .until(id, (now) => this.#note(now), this.#closing.signal)
        .then(() => resolve())
        .catch(() => undefined);
    });
  }

  /** Undefined: not ended, or removed before its end was seen. */
  get end(): RunEnd | undefined {
    return this.#end;
  }

  /** For a session whose output ended: the record may be about to say it, or there was no run. */
  async exitCode(): Promise<number> {
    const { store, watchpoints } = this.#context;
    const exitCode = await watchpoints.within(this.#id, exitCodeWaitMs, (now) => {
      if (this.#end !== undefined) return this.#end.exitCode;
      if (now === undefined) return store.tombstone(this.#id)?.exitCode ?? 0;
      return isLive(stateOf(now)) ? undefined : now.container.state.exitCode;
    });
    return exitCode ?? 0;
  }

  close(): void {
    this.#closing.abort();
  }

  #note(now: ContainerRecord | undefined): true | undefined {
    if (now === undefined) return true;
    if (now.internals.exitSequence <= this.#exitsBefore) return undefined;
    this.#end = runEnd(this.#context, now);
    return true;
  }
}

/**
 * How the run after so many exits ended, some time after that.
 *
 * @throws EngineError `conflict` when the container was started again since: its record and the end of its log are those of another run;
 *   `notFound` when it was removed
 */
export async function endOfPastRun(context: ContainerContext, id: string, exitsBefore: number): Promise<RunEnd> {
  const read = (): RunEnd => {
    const now = context.store.get(id);
    if (now === undefined) throw notFound(`No such container: ${id}`);
    if (now.internals.exitSequence !== exitsBefore + 1 || isLive(stateOf(now))) throw startedAgain();
    return runEnd(context, now);
  };
  const end = read();
  // A run that is being started writes to the log before the record tells of it. Behind a removal there would be no log any more.
  if (context.store.get(id)?.internals.removal !== null) return end;
  return context.locks.run(id, read);
}

const startedAgain = (): Error =>
  conflict(
    'the stream broke off because the container service restarted; the container was started again since, attach again',
  );

function runEnd({ settings }: ContainerContext, { container: shown }: ContainerRecord): RunEnd {
  const { exitCode } = shown.state;
  try {
    const sink = logSinkOf(shown, settings);
    return { exitCode, logEnd: endOfLog(sink.path, formatOf(sink)) };
  } catch {
    // It was a change of the record that asked, and that goes on: whoever reads the log is told what is wrong with it.
    return { exitCode, logEnd: undefined };
  }
}
