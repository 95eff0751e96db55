import { unavailable } from '@flotilla/errors';
import type { Dependencies } from './dependencies.js';

/** Lets the containers that the engine starts wait for those of them that they need. */
export class StartTurns {
  readonly #expected = new Map<string, Turn>();
  #dependencies: Dependencies = new Map();
  readonly #planned = new Turn();
  #isClosed = false;

  /** A start of this container comes, or `settle` will be called. Before `plan`. */
  expect(id: string): void {
    if (!this.#expected.has(id)) this.#expected.set(id, new Turn());
  }

  /** Everybody is known: starts may begin. */
  plan(dependencies: Dependencies): void {
    this.#dependencies = dependencies;
    this.#planned.end();
  }

  /** Nobody waits for this container any more: its start was tried, or will not be. */
  settle(id: string): void {
    this.#expected.get(id)?.end();
    this.#expected.delete(id);
  }

  /** Those who wait are refused. */
  close(): void {
    this.#isClosed = true;
    this.#planned.end();
    for (const id of [...this.#expected.keys()]) this.settle(id);
  }

  /**
   * Run a start when all that come before it have been tried.
   *
   * @throws EngineError `unavailable` after `close`; whatever the start throws.
   */
  async run<T>(id: string, start: () => Promise<T>): Promise<T> {
    try {
      await this.#planned.ended;
      for (const needed of this.#dependencies.get(id) ?? []) await this.#expected.get(needed)?.ended;
      if (this.#isClosed) throw unavailable('the engine is shutting down');
      return await start();
    } finally {
      this.settle(id);
    }
  }
}

class Turn {
  readonly ended: Promise<void>;
  #resolve: () => void = () => undefined;

  constructor() {
    this.ended = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  end(): void {
    this.#resolve();
  }
}
