import { join } from 'node:path';
import type { VolumeConfig } from '@flotilla/config';
import { startOutboxPublisher } from '@flotilla/events';
import { createLogger } from '@flotilla/log';
import type { Logger } from '@flotilla/log';
import { volume } from '@flotilla/proto';
import { serve, serviceEntry } from '@flotilla/rpc';
import type { RunningServer } from '@flotilla/rpc';
import { HybridClock, KeyedLocks, Store } from '@flotilla/store';
import type { KernelLimits } from './drivers/kernel-threads.js';
import { LocalDriver } from './drivers/local-driver.js';
import type { VolumeDriver } from './drivers/volume-driver.js';
import { volumeRpc } from './rpc/volume-rpc.js';
import { VolumeStore, volumeSchemaVersion } from './store/volume-store.js';
import { Volumes } from './volumes/volumes.js';

/** What a test may replace. */
export interface VolumeOverrides {
  log?: Logger;
  store?: Store;
  drivers?: VolumeDriver[];
  now?: () => number;
  kernelLimits?: KernelLimits;
}

/** Start the volume service; it is ready to be called when this resolves. Disposing drains calls and closes the store; mounts stay for the containers that use them. */
export async function startVolumeService(
  config: VolumeConfig,
  overrides: VolumeOverrides = {},
): Promise<RunningServer> {
  const log = overrides.log ?? createLogger({ service: 'volume', ...config.log });
  const clock = new HybridClock();
  const cleanup: AsyncDisposable[] = [];
  const dispose = async () => {
    for (const item of cleanup.splice(0).reverse()) await item[Symbol.asyncDispose]();
  };
  const use = <T extends AsyncDisposable>(item: T): T => {
    cleanup.push(item);
    return item;
  };
  try {
    const dbOptions = { service: 'volume', schemaVersion: volumeSchemaVersion, clock };
    const db = use(overrides.store ?? (await Store.open(join(config.dataDir, 'db'), dbOptions)));
    const store = await VolumeStore.load(db, log);
    const drivers = overrides.drivers ?? [
      await LocalDriver.open(join(config.dataRoot, 'volumes'), log, overrides.kernelLimits),
    ];
    drivers.forEach(use);
    for (const driver of drivers) {
      await driver.recover(store.list().filter((record) => record.driver === driver.name));
    }
    const { engineId } = config;
    const publisher = use(startOutboxPublisher(db.outbox, config.nats, log, { engineId }));
    const volumes = new Volumes({
      store,
      drivers: new Map(drivers.map((driver) => [driver.name, driver])),
      locks: new KeyedLocks(),
      clock: db.clock,
      now: overrides.now ?? Date.now,
      log,
    });
    const server = use(
      await serve({
        listen: config.listen,
        services: [serviceEntry(volume.VolumeServiceService, volumeRpc(volumes, store))],
        ...{ log, engineId, service: 'volume', version: config.version },
        clock: db.clock,
        replies: db.replies,
        details: () => Promise.resolve({ outboxPending: publisher.state.waiting }),
        flushEvents: async () => {
          await db.outbox.flush();
          return `volume-${db.outbox.lastSequence}`;
        },
      }),
    );
    return { address: server.address, health: server.health, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}
