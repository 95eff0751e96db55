/**
 * Keeps new work from beginning while a list of the work in progress is being acted upon elsewhere (ReconcileHolders): what began before is in
 * the list, what comes later waits.
 */
export class StartBarrier {
  readonly #active = new Map<string, number>();
  #raised: Promise<void> | undefined;

  /** Ids that are being worked on. */
  active(): string[] {
    return [...this.#active.keys()];
  }

  /** Run `fn` for a container, after any reconciliation under way. */
  async pass<T>(id: string, fn: () => Promise<T>): Promise<T> {
    while (this.#raised !== undefined) await this.#raised;
    this.#active.set(id, (this.#active.get(id) ?? 0) + 1);
    try {
      return await fn();
    } finally {
      const left = (this.#active.get(id) ?? 1) - 1;
      if (left === 0) this.#active.delete(id);
      else this.#active.set(id, left);
    }
  }

  /** Run `fn` while nothing new begins. One at a time. */
  async hold<T>(fn: () => Promise<T>): Promise<T> {
    while (this.#raised !== undefined) await this.#raised;
    const { promise, resolve } = deferred();
    this.#raised = promise;
    try {
      return await fn();
    } finally {
      this.#raised = undefined;
      resolve();
    }
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
