import { unavailable } from '@flotilla/errors';
import { volume } from '@flotilla/proto';
import type { VolumeStore } from '../store/volume-store.js';
import type { VolumeRecord } from '../volumes/volume-record.js';

/** A watcher that is further behind starts over with a new snapshot. */
const maxBehind = 50_000;

/** Snapshot of all visible volumes, `synced`, then every change in the order of revisions until the signal fires. */
export async function* watchVolumes(
  store: VolumeStore,
  isSeen: (record: VolumeRecord) => boolean,
  encode: (record: VolumeRecord) => volume.Volume,
  signal: AbortSignal,
): AsyncGenerator<volume.WatchVolumesResponse> {
  const queue: volume.WatchVolumesResponse[] = [];
  let wake: () => void = () => undefined;
  const onAbort = () => {
    wake();
  };
  const unsubscribe = store.onChange((revision, changes) => {
    for (const change of changes) {
      if ('removed' in change) queue.push({ revision, change: { $case: 'removed', value: change.removed } });
      else if (isSeen(change.upsert))
        queue.push({ revision, change: { $case: 'upsert', value: encode(change.upsert) } });
    }
    wake();
  });
  signal.addEventListener('abort', onAbort);
  try {
    // Taken in the same turn as the subscription: nothing is missed or told twice.
    const { revision } = store;
    const snapshot = store.list().filter(isSeen);
    for (const record of snapshot) yield { revision, change: { $case: 'upsert', value: encode(record) } };
    yield { revision, change: { $case: 'synced', value: {} } };
    while (!signal.aborted) {
      if (queue.length > maxBehind) throw unavailable('the watch fell behind: start over');
      const next = queue.shift();
      if (next !== undefined) {
        yield next;
        continue;
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    unsubscribe();
  }
}
