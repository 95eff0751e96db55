import { type Run, Session } from './attach-session.js';
import type { AttachOptions, AttachSession, ContainerStreams, StreamOptions } from './runtime.js';

/** The sessions of one container or exec, over all its runs. */
export class Streams implements ContainerStreams {
  readonly #options: StreamOptions;
  readonly #sessions = new Set<Session>();
  #run: Run | undefined;

  constructor(options: StreamOptions) {
    this.#options = options;
  }

  attach(options: AttachOptions): AttachSession {
    const session = new Session(options, this.#options, (ended) => this.#sessions.delete(ended));
    if (session.isOver) return session;
    this.#sessions.add(session);
    if (this.#run !== undefined) session.begin(this.#run);
    else if (options.stream === false) session.runEnded('exited');
    return session;
  }

  /** A run is about to start: waiting sessions join it. */
  begin(run: Run): void {
    this.#run = run;
    for (const session of [...this.#sessions]) session.begin(run);
  }

  /** The output of a run is delivered. Once that is so, sessions wait for the next run, which another call does not end. */
  end(run: Run): void {
    if (this.#run === run) this.endAll();
  }

  /** The run is over for all, or never came up. */
  endAll(): void {
    this.#run = undefined;
    const sessions = [...this.#sessions];
    // One that still reads the log ends by itself, whatever happens to the container.
    this.#sessions.clear();
    for (const session of sessions) session.runEnded('exited');
  }

  /** The container is removed, or this process lets go of it. */
  detachAll(): void {
    this.#run = undefined;
    for (const session of [...this.#sessions]) session.detach();
  }
}
