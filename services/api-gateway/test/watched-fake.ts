import { setTimeout as delay } from 'node:timers/promises';

interface Change<T> {
  revision: bigint;
  change:
    | { $case: 'upsert'; value: T }
    | { $case: 'removed'; value: string }
    | { $case: 'synced'; value: Record<string, never> };
}

/** A small owner: objects with revisions, and the Watch stream of them. */
export class WatchedFake<T> {
  readonly objects = new Map<string, T>();
  revision = 0n;
  readonly #listeners = new Set<(change: Change<T>) => void>();
  /** How much later than the reply the stream tells of a change. */
  lagMs = 0;

  put(key: string, object: T): bigint {
    this.objects.set(key, object);
    return this.#tell({ $case: 'upsert', value: object });
  }

  delete(key: string): bigint {
    this.objects.delete(key);
    return this.#tell({ $case: 'removed', value: key });
  }

  async *watch(signal: AbortSignal): AsyncGenerator<Change<T>> {
    const queue: Change<T>[] = [...this.objects.values()].map((value) => ({
      revision: this.revision,
      change: { $case: 'upsert', value },
    }));
    queue.push({ revision: this.revision, change: { $case: 'synced', value: {} } });
    let wake = (): void => undefined;
    const listener = (change: Change<T>): void => {
      queue.push(change);
      wake();
    };
    this.#listeners.add(listener);
    signal.addEventListener('abort', () => wake());
    try {
      while (!signal.aborted) {
        const next = queue.shift();
        if (next !== undefined) yield next;
        else await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      this.#listeners.delete(listener);
    }
  }

  #tell(change: Change<T>['change']): bigint {
    const revision = ++this.revision;
    const send = (): void => {
      for (const listener of this.#listeners) listener({ revision, change });
    };
    if (this.lagMs === 0) send();
    else void delay(this.lagMs).then(send);
    return revision;
  }
}
