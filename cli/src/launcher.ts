import { once } from 'node:events';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { reloadedSettings, serviceAddress, serviceFiles, serviceNames } from '@flotilla/config';
import type { DaemonSettings, EngineFacts, IdMappings, NatsSettings, ServiceName } from '@flotilla/config';
import { internal, messageOf, unavailable } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { KeptProcess } from './child-process.js';
import { readEngineId } from './engine-id.js';
import { lockDirectory } from './engine-lock.js';
import { mountSharedDirectories, sharedDirectories, unmountSharedDirectories } from './engine-mounts.js';
import { dataRecordPath, readState, removeState, statePath, writePrivateFile, writeState } from './engine-state.js';
import type { EngineState, ProcessState } from './engine-state.js';
import type { HealthClient } from './health-check.js';
import { refuseSocketsInUse } from './host-sockets.js';
import { Bell, intervalMs, watchHealth } from './health-watch.js';
import type { Health, HealthWatchOptions } from './health-watch.js';
import { answersJetStream } from './jetstream-check.js';
import { prepareNatsServer } from './nats-server.js';
import { adjustOomScore } from './oom-score.js';
import { openWay } from './open-way.js';
import { identify, waitForEnd } from './process-identity.js';
import type { ProcessIdentity } from './process-identity.js';
import { startOrder, stopOrder } from './start-order.js';
import type { StartOrder } from './start-order.js';

export interface LauncherOptions {
  readonly settings: DaemonSettings;
  readonly version: string;
  /** Directory that holds `<service>.js` of every service. */
  readonly bundleDir: string;
  readonly log: Logger;
  /** Run every service in a mount namespace that shares only the four shared directories with the others. */
  readonly isolateMounts: boolean;
}

/** A started engine. Disposing stops its processes in order; containers go on running, unless the settings say otherwise. */
export interface RunningEngine extends AsyncDisposable {
  /** Resolves when every service has said that it serves for the first time. */
  readonly ready: Promise<void>;
  /**
   * Go on with what of new settings can change while the engine runs; the rest is named in the log.
   *
   * @throws EngineError when a service refuses; nothing has changed then.
   */
  reload(fresh: DaemonSettings): Promise<void>;
}

const orphanLimitMs = 7000;
// A first service that takes longer (a big store, a fault) does not hold up the rest.
const firstLimitMs = 1000;
const defaultShutdownSeconds = 15;

/**
 * Start every process of an engine and keep them running.
 *
 * @throws EngineError `conflict` when another launcher uses the same data or exec root, or another process a socket of the API.
 */
export async function startEngine(options: LauncherOptions): Promise<RunningEngine> {
  const { settings, log } = options;
  const { dataRoot, execRoot } = settings;
  const userNamespace = await resolveUserNamespace(settings, log);
  mkdirSync(execRoot, { recursive: true, mode: 0o700 });
  if (userNamespace !== undefined) openWay(execRoot, userNamespace);
  const locks = [lockDirectory(dataRoot)];
  try {
    if (execRoot !== dataRoot) locks.push(lockDirectory(execRoot));
    await endOrphans([dataRecordPath(dataRoot), statePath(execRoot)], log);
    await refuseSocketsInUse(settings.hosts);
    const engine = new Engine(options, { engineId: readEngineId(dataRoot), userNamespace });
    try {
      await engine.start();
    } catch (error) {
      await engine.stop();
      throw error;
    }
    return {
      ready: engine.ready,
      reload: (fresh) => engine.reload(fresh),
      async [Symbol.asyncDispose]() {
        await engine.stop();
        for (const lock of locks.reverse()) lock[Symbol.dispose]();
      },
    };
  } catch (error) {
    for (const lock of locks.reverse()) lock[Symbol.dispose]();
    throw error;
  }
}

/** @throws EngineError when `userns-remap` names nobody or the machine has no ids for it */
async function resolveUserNamespace({ given }: DaemonSettings, log: Logger): Promise<IdMappings | undefined> {
  const specification = given['userns-remap'] ?? '';
  if (specification === '') return undefined;
  const { remappedRoot } = await import('./remapped-root.js');
  const { machineAccounts } = await import('./machine-accounts.js');
  const mappings = remappedRoot(specification, machineAccounts);
  if (mappings === undefined) {
    log.warn('User namespaces: root cannot be remapped with itself; user namespaces are OFF');
  } else {
    log.info({ mappings }, 'containers run in user namespaces of their own');
  }
  return mappings;
}

/** The services of a launcher that died stop by themselves; whoever does not is killed. Containers are not among them. */
async function endOrphans(records: readonly string[], log: Logger): Promise<void> {
  const orphans = new Map<number, ProcessState & { process: ProcessIdentity }>();
  for (const record of records) {
    for (const state of readState(record)?.processes ?? []) {
      if (state.process !== undefined) orphans.set(state.process.pid, { ...state, process: state.process });
    }
  }
  await Promise.all(
    [...orphans.values()].map(async ({ service, process: orphan }) => {
      if (await waitForEnd(orphan, orphanLimitMs)) return;
      log.warn({ process: service, pid: orphan.pid }, 'process of an engine before hangs, killing it');
      process.kill(orphan.pid, 'SIGKILL');
      if (!(await waitForEnd(orphan, orphanLimitMs)))
        throw unavailable(`${service} (pid ${orphan.pid}) cannot be killed`);
    }),
  );
}

class Engine {
  readonly ready: Promise<void>;
  readonly #options: LauncherOptions;
  readonly #facts: Pick<EngineFacts, 'engineId' | 'userNamespace'>;
  readonly #services: readonly ServiceName[];
  readonly #processes = new Map<string, KeptProcess>();
  readonly #health = new Map<string, Health>();
  readonly #watching = new AbortController();
  readonly #background: Promise<void>[] = [];
  #settings: DaemonSettings;
  #nats: NatsSettings | undefined;
  #reloading: Promise<void> = Promise.resolve();
  #natsUrl = '';
  readonly #healthListeners = new Set<() => void>();
  #isPrepared = false;

  constructor(options: LauncherOptions, facts: Pick<EngineFacts, 'engineId' | 'userNamespace'>) {
    this.#options = options;
    this.#facts = facts;
    this.#settings = options.settings;
    this.#services = serviceNames.filter((name) => !options.settings.remoteServices.has(name));
    this.ready = this.#serving(this.#services);
  }

  async start(): Promise<void> {
    const { settings, version, log, isolateMounts } = this.#options;
    const { dataRoot, execRoot } = settings;
    adjustOomScore(settings.given['oom-score-adjust'], log);
    const nats = await this.#prepareNats();
    this.#nats = nats;
    const files = serviceFiles(settings, { ...this.#facts, version, nats });
    for (const service of this.#services) {
      const file = this.#configFile(service);
      writePrivateFile(file, textOf(files[service]));
      this.#prepare(service, file);
    }
    this.#isPrepared = true;

    const shared = sharedDirectories(dataRoot, execRoot);
    if (isolateMounts) await mountSharedDirectories(shared);
    const order = startOrder(this.#services);
    this.#startAll(order.gateway);
    if (!isolateMounts) await mountSharedDirectories(shared);
    this.#startAll(order.first);
    this.#processes.get('nats-server')?.start();
    this.#background.push(this.#startRest(order, nats));
    if (settings.pidfile !== undefined) writeFileSync(settings.pidfile, String(process.pid));
    for (const notice of settings.notices) log.warn(notice);
  }

  async stop(): Promise<void> {
    const { settings, log } = this.#options;
    if (settings.given['live-restore'] === false && this.#isPrepared) await this.#stopContainers();
    this.#watching.abort();
    for (const group of stopOrder(this.#services)) {
      await Promise.all(group.map(async (service) => this.#processes.get(service)?.stop()));
    }
    await this.#processes.get('nats-server')?.stop();
    await Promise.all(this.#background);
    await unmountSharedDirectories(sharedDirectories(settings.dataRoot, settings.execRoot), log);
    if (settings.pidfile !== undefined) rmSync(settings.pidfile, { force: true });
    removeState(settings);
  }

  /** While all that containers need still lives, and nobody asks for more of them. */
  async #stopContainers(): Promise<void> {
    const { settings, log } = this.#options;
    await this.#processes.get('api-gateway')?.stop();
    const { stopContainers } = await import('./stop-containers.js');
    try {
      const timeoutSeconds = settings.given['shutdown-timeout'] ?? defaultShutdownSeconds;
      const stopped = await stopContainers(serviceAddress(settings, 'container'), timeoutSeconds, log);
      log.info({ stopped: stopped.length }, 'containers stopped');
    } catch (error) {
      log.error({ reason: messageOf(error) }, 'containers not stopped, they run on');
    }
  }

  /** One after the other: a second one begins with what the first has left. */
  reload(fresh: DaemonSettings): Promise<void> {
    const reloaded = this.#reloading.then(() => this.#reload(fresh));
    this.#reloading = reloaded.catch(() => undefined);
    return reloaded;
  }

  async #reload(fresh: DaemonSettings): Promise<void> {
    const { version, log } = this.#options;
    const { settings, waiting } = reloadedSettings(this.#settings, fresh);
    const files = serviceFiles(settings, { ...this.#facts, version, nats: this.#nats ?? null });
    const parts = this.#services.map((service) => ({
      service,
      address: serviceAddress(settings, service),
      configJson: textOf(files[service]),
    }));
    // With it comes gRPC, which a start does not need.
    const { reloadServices } = await import('./reload.js');
    const keep = (): void => {
      for (const { service, configJson } of parts) writePrivateFile(this.#configFile(service), configJson);
    };
    await reloadServices(parts, keep, log);
    this.#settings = settings;
    for (const key of waiting) log.warn({ key }, 'this key counts from the next start of the engine');
  }

  #configFile(service: ServiceName): string {
    return join(this.#options.settings.execRoot, 'config', `${service}.json`);
  }

  #startAll(services: readonly ServiceName[]): void {
    for (const service of services) this.#processes.get(service)?.start();
  }

  async #startRest({ gateway, first, rest }: StartOrder, nats: NatsSettings): Promise<void> {
    const { signal } = this.#watching;
    const limit = delay(firstLimitMs, undefined, { signal }).catch(() => undefined);
    await Promise.race([this.#serving([...gateway, ...first]), limit]);
    if (signal.aborted) return;
    this.#startAll(rest);
    await this.#ensureStream(nats);
  }

  /** Resolves when all of them have said that they serve. */
  #serving(services: readonly ServiceName[]): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!services.every((name) => this.#health.get(name) === 'SERVING')) return;
        this.#healthListeners.delete(look);
        resolve();
      };
      this.#healthListeners.add(look);
      look();
    });
  }

  async #prepareNats(): Promise<NatsSettings> {
    const { settings, log } = this.#options;
    if (settings.nats !== undefined) return settings.nats;
    const nats = await prepareNatsServer({ ...settings, log, onChange: () => this.#record() });
    const { url } = nats.settings;
    this.#natsUrl = url;
    this.#processes.set('nats-server', nats.process);
    this.#watch(nats.process, {
      check: async () => ((await answersJetStream(nats.settings)) ? 'SERVING' : 'UNREACHABLE'),
      serves: new Bell(),
      startIntervalMs: 50,
    });
    return nats.settings;
  }

  #prepare(service: ServiceName, configFile: string): void {
    const { bundleDir, log, settings, isolateMounts } = this.#options;
    const program = join(bundleDir, `${service}.js`);
    if (!existsSync(program)) throw internal(`${program} is missing`);
    const command = [process.execPath, ...nodeFlags, program, '--config', configFile, '--parent-fd', '3'];
    const [file = '', ...args] = isolateMounts ? isolated(command, settings) : command;
    const serves = new Bell();
    const kept = new KeptProcess({
      name: service,
      log,
      command: () => ({ file, args, env: serviceEnvironment() }),
      onChange: () => this.#record(),
      onServing: () => serves.ring(),
    });
    this.#processes.set(service, kept);
    let client: HealthClient | undefined;
    const check = async (): Promise<Health> => {
      // Loaded with the first question, long after the start: a service says by itself that it serves.
      const { checkHealth, healthClient } = await import('./health-check.js');
      client ??= healthClient(serviceAddress(settings, service), log);
      return checkHealth(client);
    };
    this.#watch(kept, { check, serves, startIntervalMs: intervalMs, close: () => client?.close() });
  }

  #watch(
    kept: KeptProcess,
    asking: Pick<HealthWatchOptions, 'check' | 'serves' | 'startIntervalMs'> & { close?: () => void },
  ): void {
    const { log } = this.#options;
    const watching = watchHealth({
      ...asking,
      pid: () => kept.identity?.pid,
      onSilent: () => {
        log.error({ process: kept.name, pid: kept.identity?.pid }, 'process answers no health check, killing it');
        kept.kill();
      },
      onChange: (health) => {
        log.debug({ process: kept.name, health }, 'health changed');
        this.#health.set(kept.name, health);
        this.#record();
        for (const look of this.#healthListeners) look();
      },
      signal: this.#watching.signal,
    });
    this.#background.push(watching.finally(() => asking.close?.()));
  }

  /** Make the stream of all events. Until then they wait in the outboxes. */
  async #ensureStream(nats: NatsSettings): Promise<void> {
    const { log, bundleDir } = this.#options;
    const { signal } = this.#watching;
    while (!signal.aborted) {
      const worker = new Worker(join(bundleDir, 'event-stream-worker.js'), { workerData: nats, execArgv: [] });
      const stopWorker = () => void worker.terminate();
      signal.addEventListener('abort', stopWorker, { once: true });
      try {
        await once(worker, 'exit'); // rejects with the error that ended it
        return;
      } catch (error) {
        log.warn({ reason: messageOf(error) }, 'event stream not made yet');
      } finally {
        signal.removeEventListener('abort', stopWorker);
      }
    }
  }

  #record(): void {
    const { settings, version } = this.#options;
    const launcher = identify(process.pid);
    if (launcher === undefined || !this.#isPrepared) return;
    const state: EngineState = {
      launcher,
      version,
      engineId: this.#facts.engineId,
      dataRoot: settings.dataRoot,
      execRoot: settings.execRoot,
      processes: [...this.#processes.values()].map((kept): ProcessState => ({
        service: kept.name,
        process: kept.identity,
        address: kept.name === 'nats-server' ? this.#natsUrl : serviceAddress(settings, kept.name as ServiceName),
        restarts: kept.restarts,
        health: this.#health.get(kept.name) ?? 'UNREACHABLE',
      })),
    };
    try {
      writeState(state);
    } catch (error) {
      // A full disk: the engine goes on, and the next change is written down again.
      this.#options.log.warn({ reason: messageOf(error) }, 'state not written down');
    }
  }
}

const textOf = (file: unknown): string => JSON.stringify(file, undefined, 2);

// Given when bundling: the code caches are made for them.
declare const FLOTILLA_NODE_FLAGS: readonly string[] | undefined;
const nodeFlags = typeof FLOTILLA_NODE_FLAGS === 'undefined' ? [] : FLOTILLA_NODE_FLAGS;

// Services read their file and never the environment; these are for the programs they start.
function serviceEnvironment(): NodeJS.ProcessEnv {
  const { PATH, HOME, TMPDIR, LANG, TZ } = process.env;
  return Object.fromEntries(
    Object.entries({ PATH, HOME, TMPDIR, LANG, TZ }).filter(([, value]) => value !== undefined),
  );
}

/** In a mount namespace of its own, with only the shared directories shared. */
function isolated(command: readonly string[], { dataRoot, execRoot }: DaemonSettings): string[] {
  const script =
    'shared="$1"; shift; ' +
    'for point in $(cut -d" " -f5 /proc/self/mountinfo); do ' +
    'keep=; for dir in $shared; do case "$point/" in "$dir"/*) keep=1;; esac; done; ' +
    '[ -n "$keep" ] || mount --make-private "$point" 2>/dev/null; done; exec "$@"';
  const shared = sharedDirectories(dataRoot, execRoot).join(' ');
  return ['unshare', '--mount', '--propagation', 'unchanged', 'sh', '-c', script, 'isolated', shared, ...command];
}
