import { config } from '@flotilla/proto';
import { conflict, unavailable } from '@flotilla/errors';
import { serviceEntry, unary } from './handlers.js';
import type { ServiceEntry } from './handlers.js';
import type { CallMetrics } from './metrics.js';

/** A service's part in a reload of the configuration. */
export interface ConfigParticipant {
  /**
   * Check the whole new configuration file (JSON) and return what applies it; nothing changes before that is called.
   * @throws EngineError `invalidArgument` naming the key.
   */
  prepare(configJson: string): Promise<() => Promise<void>>;
}

/** What a process tells of itself; all of it may be absent. */
export interface ServiceDetails {
  outboxPending?: bigint;
  components?: config.Component[];
  warnings?: string[];
  storageDriver?: string;
}

export interface ConfigServiceOptions {
  service: string;
  version: string;
  engineId: string;
  metrics: CallMetrics;
  participant: ConfigParticipant | undefined;
  details: (() => Promise<ServiceDetails>) | undefined;
  flushEvents: (() => Promise<string>) | undefined;
  ownMetrics: (() => Promise<readonly string[]>) | undefined;
}

/** `flotilla.config.v1.ConfigService`, which every process serves. */
export function configEntry(options: ConfigServiceOptions): ServiceEntry {
  let prepared: { reloadId: string; apply: () => Promise<void> } | undefined;
  return serviceEntry(config.ConfigServiceService, {
    prepareConfig: unary(async ({ reloadId, configJson }) => {
      const apply = (await options.participant?.prepare(configJson)) ?? (() => Promise.resolve());
      prepared = { reloadId, apply };
      return {};
    }),
    commitConfig: unary(async ({ reloadId }) => {
      if (prepared?.reloadId !== reloadId) throw conflict(`no configuration is prepared for reload ${reloadId}`);
      const { apply } = prepared;
      prepared = undefined;
      await apply();
      return {};
    }),
    rollbackConfig: unary(({ reloadId }) => {
      if (prepared?.reloadId === reloadId) prepared = undefined;
      return Promise.resolve({});
    }),
    getServiceInfo: unary(async () => {
      const {
        outboxPending = 0n,
        components = [],
        warnings = [],
        storageDriver = '',
      } = (await options.details?.()) ?? {};
      const { service, version, engineId } = options;
      return { service, version, pid: process.pid, engineId, outboxPending, components, warnings, storageDriver };
    }),
    getMetrics: unary(async () => {
      const own = (await options.ownMetrics?.()) ?? [];
      return { text: options.metrics.render(options.service) + own.map((line) => `${line}\n`).join('') };
    }),
    flushEvents: unary(async () => {
      if (options.flushEvents === undefined) throw unavailable(`${options.service} publishes no events`);
      return { lastEventId: await options.flushEvents() };
    }),
  });
}
