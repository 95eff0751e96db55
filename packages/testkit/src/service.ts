import { join } from 'node:path';
import { parseDaemonFlags, readDaemonSettings, serviceFiles } from '@flotilla/config';
import type { ServiceConfigs, ServiceName } from '@flotilla/config';
import { makeTempDir } from './temp-dir.js';

/** A service started in the test's process, with directories of its own. */
export interface ServiceUnderTest<N extends ServiceName> extends AsyncDisposable {
  /** For `connect`. */
  readonly address: string;
  readonly config: ServiceConfigs[N];
}

export interface ServiceOptions<N extends ServiceName> {
  /** Addresses of other services, faked at their gRPC edge. */
  services?: Partial<Record<ServiceName, string>>;
  nats?: ServiceConfigs[N]['nats'];
  /** Changes to the configuration that the launcher would write. */
  change?: (config: ServiceConfigs[N]) => ServiceConfigs[N];
  /** Holds data and exec root; a new one that goes with the service when absent. */
  directory?: string;
}

/**
 * Start a service as its process does, but in this one: `startService('volume', startVolumeService)`.
 * It listens on a unix socket in a temporary directory.
 */
export async function startService<N extends ServiceName>(
  name: N,
  start: (config: ServiceConfigs[N]) => Promise<AsyncDisposable & { address: string }>,
  options: ServiceOptions<N> = {},
): Promise<ServiceUnderTest<N>> {
  const temporary = options.directory === undefined ? await makeTempDir(name) : undefined;
  const directory = options.directory ?? temporary?.path ?? '';
  try {
    const config = serviceConfigFor(name, directory, options);
    const running = await start(config);
    return {
      address: running.address,
      config,
      async [Symbol.asyncDispose]() {
        await running[Symbol.asyncDispose]();
        await temporary?.[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await temporary?.[Symbol.asyncDispose]();
    throw error;
  }
}

/** The configuration that the launcher would write for a service whose engine lives in `directory`. */
export function serviceConfigFor<N extends ServiceName>(
  name: N,
  directory: string,
  { services = {}, nats = null, change = (config) => config }: ServiceOptions<N> = {},
): ServiceConfigs[N] {
  const roots = ['--data-root', join(directory, 'data'), '--exec-root', join(directory, 'run')];
  const settings = { ...readDaemonSettings({ ...parseDaemonFlags(roots), configFile: '/dev/null' }) };
  const facts = { version: '0.0.0-test', engineId: '00000000-0000-4000-8000-000000000000', nats };
  const made = serviceFiles(settings, facts)[name];
  return change({ ...made, log: { level: 'silent', format: 'json' }, services: { ...made.services, ...services } });
}
