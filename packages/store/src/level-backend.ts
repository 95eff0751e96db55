import { mkdir, readdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import leveldown from 'leveldown';
import type { LevelDown } from 'leveldown';
import { EngineError, internal, messageOf, unavailable } from '@flotilla/errors';
import type { Backend, KeyRange, WriteOperation } from './backend.js';
import { SpaceReserve } from './space-reserve.js';
import { forgetStoreOwner, readStoreOwner, recordStoreOwner } from './store-owner.js';

const options = {
  createIfMissing: true,
  // Owners keep an index in memory, so caches stay small; the write buffer bounds the log that is replayed at start.
  cacheSize: 1 << 20,
  writeBufferSize: 2 << 20,
  maxOpenFiles: 256,
};
// Replaying the log at open writes it out as a table; beside that a new log and a manifest are begun.
const reopenSlackBytes = 256 << 10;

export interface LevelBackendOptions {
  dir: string;
  /** Named in every error. */
  service: string;
  /** How long to wait for another process to let go of the directory. */
  lockTimeoutMs: number;
}

/** One LevelDB directory. After a failed write (a full disk) LevelDB refuses all further ones until `recover` has opened it anew. */
export class LevelBackend implements Backend {
  readonly #options: LevelBackendOptions;
  readonly #reserve: SpaceReserve;
  #db: LevelDown;
  #reopening: Promise<void> | undefined;

  private constructor(backendOptions: LevelBackendOptions, db: LevelDown) {
    this.#options = backendOptions;
    this.#db = db;
    this.#reserve = new SpaceReserve(backendOptions.dir);
    this.#reserve.refill();
  }

  /** @throws EngineError `unavailable` when another process has the directory open, `dataLoss` when LevelDB cannot read it. */
  static async open(backendOptions: LevelBackendOptions): Promise<LevelBackend> {
    const { dir, service, lockTimeoutMs } = backendOptions;
    await mkdir(dir, { recursive: true, mode: 0o700 });
    const deadline = Date.now() + lockTimeoutMs;
    for (;;) {
      try {
        const db = await openLevel(dir);
        try {
          await recordStoreOwner(dir);
        } catch (error) {
          await closeLevel(db);
          throw error;
        }
        return new LevelBackend(backendOptions, db);
      } catch (error) {
        if (!isLockError(error)) throw openError(service, dir, error);
        if (Date.now() >= deadline) {
          const owner = await readStoreOwner(dir);
          const who = owner === undefined ? 'another process' : `process ${owner.pid}`;
          throw unavailable(`the ${service} store ${dir} is in use by ${who}: stop it, or use another data root`, {
            cause: error,
          });
        }
        await delay(25);
      }
    }
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    await this.#reopening;
    const db = this.#db;
    return new Promise((resolve, reject) => {
      db.getMany([key], (error, values) => {
        if (error) reject(this.#readError(error));
        else resolve(values?.[0]);
      });
    });
  }

  async *entries(range: KeyRange): AsyncIterable<[Buffer, Buffer]> {
    await this.#reopening;
    const iterator = this.#db.iterator(range);
    const next = () =>
      new Promise<[Buffer, Buffer] | undefined>((resolve, reject) => {
        iterator.next((error, key, value) => {
          if (error) reject(this.#readError(error));
          else resolve(key === undefined || value === undefined ? undefined : [key, value]);
        });
      });
    try {
      for (let entry = await next(); entry !== undefined; entry = await next()) yield entry;
    } finally {
      await new Promise<void>((resolve) => {
        iterator.end(() => {
          resolve();
        });
      });
    }
  }

  async write(operations: WriteOperation[]): Promise<void> {
    const db = this.#db;
    try {
      await new Promise<void>((resolve, reject) => {
        db.batch(operations, { sync: true }, (error) => {
          if (error) reject(error);
          else resolve();
        });
      });
    } catch (error) {
      throw this.#writeError(error);
    }
    this.#reserve.refill();
  }

  async recover(): Promise<void> {
    const { dir } = this.#options;
    await this.#reserve.release();
    const { bavail, bsize } = await statfs(dir);
    // With less room the reopened database would fail again.
    if (bavail * bsize < (await logBytes(dir)) + reopenSlackBytes)
      throw this.#writeError(new Error('No space left on device'));
    // Readers wait for the new handle; those under way end before `close` calls back.
    this.#reopening = (async () => {
      if (this.#db.status === 'open') await closeLevel(this.#db);
      this.#db = await openLevel(dir);
    })();
    try {
      await this.#reopening;
    } catch (error) {
      throw this.#writeError(error);
    } finally {
      this.#reopening = undefined;
    }
  }

  async close(): Promise<void> {
    await this.#reopening?.catch(() => undefined);
    await this.#reserve.close();
    await forgetStoreOwner(this.#options.dir).catch(() => undefined);
    if (this.#db.status === 'open') await closeLevel(this.#db);
  }

  #writeError(error: unknown): EngineError {
    return internal(`cannot write the ${this.#options.service} store: ${reasonOf(error)}`, { cause: error });
  }

  #readError(error: unknown): EngineError {
    return internal(`cannot read the ${this.#options.service} store: ${reasonOf(error)}`, { cause: error });
  }
}

async function logBytes(dir: string): Promise<number> {
  const names = (await readdir(dir)).filter((name) => name.endsWith('.log'));
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

function openLevel(dir: string): Promise<LevelDown> {
  const db = leveldown(dir);
  return new Promise((resolve, reject) => {
    db.open(options, (error) => {
      if (error) reject(error);
      else resolve(db);
    });
  });
}

function closeLevel(db: LevelDown): Promise<void> {
  return new Promise((resolve, reject) => {
    db.close((error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}

// LevelDB's status reaches us as text only. Its lock failures name the LOCK file, whatever the C library's words for the rest.
function isLockError(error: unknown): boolean {
  return /lock .*\/LOCK: /.test(messageOf(error));
}

function openError(service: string, dir: string, error: unknown): EngineError {
  if (messageOf(error).startsWith('Corruption: ')) {
    return new EngineError('dataLoss', `the ${service} store ${dir} is damaged: ${messageOf(error)}`, { cause: error });
  }
  return internal(`cannot open the ${service} store ${dir}: ${reasonOf(error)}`, { cause: error });
}

// "IO error: /var/lib/x/db/000003.log: No space left on device" -> "no space left on device", as dockerd writes errno texts.
function reasonOf(error: unknown): string {
  const message = messageOf(error);
  const reason = message.startsWith('IO error: ') ? message.slice(message.lastIndexOf(': ') + 2) : message;
  return reason.charAt(0).toLowerCase() + reason.slice(1);
}
