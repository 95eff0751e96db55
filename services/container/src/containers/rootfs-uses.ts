import { conflict } from '@flotilla/errors';

/** Without a byte for so long, a copy gives way to what waits for the root file system. */
export const defaultStallMs = 30_000;

/** One copy in or out of a container. */
export interface RootfsUse {
  /** Fires, with an EngineError as reason, when the copy has to end. */
  readonly signal: AbortSignal;
  /** A byte has moved. */
  progress(): void;
  /** Nothing of the container is open or mounted any more. */
  end(): void;
}

interface Running {
  readonly stop: AbortController;
  readonly ended: Promise<void>;
  lastProgressMs: number;
}

/**
 * Who holds the root file systems of containers open from outside of them: copies. A mount of one can only follow when they have ended, for
 * an overlay must not be mounted twice, and its layers can only be removed then.
 */
export class RootfsUses {
  readonly #running = new Map<string, Set<Running>>();
  readonly #stallMs: number;

  constructor(stallMs = defaultStallMs) {
    this.#stallMs = stallMs;
  }

  /** `end` must be called whatever comes. */
  begin(id: string): RootfsUse {
    const stop = new AbortController();
    let end = (): void => undefined;
    const ended = new Promise<void>((resolve) => (end = resolve));
    const use: Running = { stop, ended, lastProgressMs: performance.now() };
    const uses = this.#running.get(id) ?? new Set();
    uses.add(use);
    this.#running.set(id, uses);
    return {
      signal: stop.signal,
      progress: () => {
        use.lastProgressMs = performance.now();
      },
      end: () => {
        uses.delete(use);
        if (uses.size === 0 && this.#running.get(id) === uses) this.#running.delete(id);
        end();
      },
    };
  }

  /** Wait until nobody uses it; a copy that stalls is ended. */
  async settle(id: string): Promise<void> {
    for (;;) {
      const uses = [...(this.#running.get(id) ?? [])];
      if (uses.length === 0) return;
      await Promise.all(uses.map((use) => this.#awaitEnd(id, use)));
    }
  }

  /** End every use, and wait until they have. */
  async endAll(id: string, reason: string): Promise<void> {
    for (const { stop } of this.#running.get(id) ?? []) stop.abort(conflict(reason));
    await this.settle(id);
  }

  async #awaitEnd(id: string, use: Running): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const check = (): void => {
      const leftMs = use.lastProgressMs + this.#stallMs - performance.now();
      if (leftMs > 0) timer = setTimeout(check, leftMs);
      else use.stop.abort(conflict(`the copy stood still while container ${id} was needed`));
    };
    check();
    await use.ended;
    clearTimeout(timer);
  }
}
