import { cancelled } from '@flotilla/errors';
import type { ContainerRecord } from '../store/container-record.js';
import type { ContainerStore } from '../store/container-store.js';

type Check = (record: ContainerRecord | undefined) => void;

/** Lets callers wait until a container's record satisfies a condition; `undefined` stands for a removed one. */
export class Watchpoints {
  readonly #store: ContainerStore;
  readonly #checks = new Map<string, Set<Check>>();

  constructor(store: ContainerStore) {
    this.#store = store;
    store.onChange((_revision, changes) => {
      for (const [id, record] of changes) for (const check of [...(this.#checks.get(id) ?? [])]) check(record);
    });
  }

  /**
   * Settles with what `test` returns first that is not `undefined`, beginning with the present record. No change is missed in between.
   *
   * @throws EngineError `cancelled` when the signal fires.
   */
  until<T>(id: string, test: (record: ContainerRecord | undefined) => T | undefined, signal?: AbortSignal): Promise<T> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(cancelled('waiting was cancelled'));
        return;
      }
      const now = test(this.#store.get(id));
      if (now !== undefined) {
        resolve(now);
        return;
      }
      const end = (): void => {
        signal?.removeEventListener('abort', abort);
        const checks = this.#checks.get(id);
        checks?.delete(check);
        if (checks?.size === 0) this.#checks.delete(id);
      };
      const check: Check = (record) => {
        const result = test(record);
        if (result === undefined) return;
        end();
        resolve(result);
      };
      const abort = (): void => {
        end();
        reject(cancelled('waiting was cancelled'));
      };
      signal?.addEventListener('abort', abort, { once: true });
      const checks = this.#checks.get(id) ?? new Set();
      checks.add(check);
      this.#checks.set(id, checks);
    });
  }

  /** As `until`, for at most `ms`; `undefined` when the time is over. */
  async within<T>(
    id: string,
    ms: number,
    test: (record: ContainerRecord | undefined) => T | undefined,
  ): Promise<T | undefined> {
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), ms);
    try {
      return await this.until(id, test, limit.signal);
    } catch (error) {
      if (limit.signal.aborted) return undefined;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}
