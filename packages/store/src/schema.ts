import { EngineError, internal } from '@flotilla/errors';
import type { Backend } from './backend.js';
import { CollectingBatch } from './batch.js';
import type { Batch } from './batch.js';
import type { Codec } from './codec.js';
import { StoredCollection } from './collection.js';
import type { Collection } from './collection.js';
import { schemaKey } from './keys.js';

/** One step forward: from version `to - 1` to `to`. Its changes and the new version number are one batch; it may emit no events. */
export interface Migration {
  to: number;
  migrate(records: MigratedRecords, batch: Pick<Batch, 'put' | 'delete'>): Promise<void> | void;
}

/** The records as the version before left them; a collection may be read with the codec of then and written with that of now. */
export interface MigratedRecords {
  collection<T>(name: string, codec: Codec<T>): Collection<T>;
}

/** The layout of the key space itself, below any service's records. */
const layoutVersion = 1;

interface SchemaRecord {
  layout: number;
  service: string;
  version: number;
}

/**
 * Bring the records to `version`, or refuse.
 *
 * @throws EngineError `dataLoss` when the store is another service's or was written by a newer version.
 */
export async function migrateSchema(
  backend: Backend,
  where: string,
  service: string,
  version: number,
  migrations: readonly Migration[],
): Promise<void> {
  const stored = await backend.get(schemaKey);
  if (stored === undefined) {
    await backend.write([schemaOperation(service, version)]);
    return;
  }
  const found = parseSchema(stored, where);
  if (found.service !== service) {
    throw new EngineError('dataLoss', `${where} holds the ${found.service} store, not the ${service} store`);
  }
  if (found.layout > layoutVersion || found.version > version) {
    throw new EngineError(
      'dataLoss',
      `the ${service} store ${where} was written by a newer version of Flotilla (schema ${found.version}, this one understands ${version}): ` +
        'run that version, or restore a backup made before the upgrade',
    );
  }
  for (let next = found.version + 1; next <= version; next += 1) {
    const step = migrations.find((migration) => migration.to === next);
    if (step === undefined) throw internal(`the ${service} store has no migration to schema ${next}`);
    const batch = new CollectingBatch(0n);
    await step.migrate({ collection: (name, codec) => new StoredCollection(backend, name, codec) }, batch);
    batch.seal();
    await backend.write([...batch.operations, schemaOperation(service, next)]);
  }
}

/** Operation that records the version of a new store. */
export function schemaOperation(service: string, version: number): { type: 'put'; key: Buffer; value: Buffer } {
  const record: SchemaRecord = { layout: layoutVersion, service, version };
  return { type: 'put', key: schemaKey, value: Buffer.from(JSON.stringify(record)) };
}

function parseSchema(stored: Buffer, where: string): SchemaRecord {
  try {
    const record = JSON.parse(stored.toString()) as Partial<SchemaRecord>;
    const { layout, service, version } = record;
    if (typeof layout === 'number' && typeof service === 'string' && typeof version === 'number') {
      return { layout, service, version };
    }
  } catch {
    // The sentence below says it.
  }
  throw new EngineError('dataLoss', `${where} is no Flotilla store`);
}
