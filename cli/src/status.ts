import { silentLogger } from '@flotilla/log';
import { config } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import { readState, statePath } from './engine-state.js';
import type { ProcessState } from './engine-state.js';
import { checkHealth, healthClient } from './health-check.js';
import type { Health } from './health-watch.js';
import { isAlive } from './process-identity.js';

/** A service may run programs to find out their versions. */
const infoDeadlineMs = 10_000;

/** One line of `flotilla status`. */
export interface ServiceStatus {
  service: string;
  /** 0 while it is down. */
  pid: number;
  address: string;
  version: string;
  health: Health;
  restarts: number;
}

/** Ask every process of the engine that runs with this exec root; undefined when none does. */
export async function engineStatus(
  execRoot: string,
): Promise<{ launcherPid: number; services: ServiceStatus[] } | undefined> {
  const state = readState(statePath(execRoot));
  if (state === undefined || !isAlive(state.launcher)) return undefined;
  const services = await Promise.all(
    state.processes.map(async (each): Promise<ServiceStatus> => {
      const { service, process: identity, address, restarts } = each;
      const lives = identity !== undefined && isAlive(identity);
      return {
        service,
        pid: lives ? identity.pid : 0,
        address,
        version: state.version,
        health: lives ? await askHealth(each) : 'UNREACHABLE',
        restarts,
      };
    }),
  );
  return { launcherPid: state.launcher.pid, services };
}

async function askHealth({ address, health }: ProcessState): Promise<Health> {
  // The bus listens on the loopback of the launcher's network namespace, which need not be this one.
  if (!address.startsWith('unix:')) return health;
  const client = healthClient(address, silentLogger());
  try {
    return await checkHealth(client);
  } finally {
    client.close();
  }
}

/** What the services that run have to say to their user, as `docker info` shows it too. */
export async function engineWarnings(services: readonly ServiceStatus[]): Promise<string[]> {
  const asked = services.filter(({ address, health }) => health === 'SERVING' && address.startsWith('unix:'));
  const answers = await Promise.all(
    asked.map(async ({ service, address }) => {
      const client = connect(config.ConfigServiceService, address, { log: silentLogger() });
      try {
        const { warnings } = await client.getServiceInfo({}, { deadlineMs: infoDeadlineMs, retryUnavailableMs: 0 });
        return warnings.map((warning) => `${service}: ${warning}`);
      } catch {
        // Not every process serves it; its health is told anyway.
        return [];
      } finally {
        client.close();
      }
    }),
  );
  return answers.flat();
}

/** The status as aligned columns. */
export function renderStatus(services: readonly ServiceStatus[]): string {
  const rows = [
    ['SERVICE', 'PID', 'HEALTH', 'RESTARTS', 'VERSION', 'ADDRESS'],
    ...services.map((each) => [
      each.service,
      each.pid === 0 ? '-' : String(each.pid),
      each.health,
      String(each.restarts),
      each.version,
      each.address,
    ]),
  ];
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
