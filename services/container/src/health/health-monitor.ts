import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '@flotilla/errors';
import { type container, type Timestamp, timestampFromNs } from '@flotilla/proto';
import type { ContainerContext } from '../containers/context.js';
import { healthChanged } from '../containers/events.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { type HealthCheck, healthAfter, healthCheckOf, nextProbeMs } from './health-check.js';

/** What a probe brought. */
export interface ProbeResult {
  readonly exitCode: number;
  readonly output: string;
}

/** Runs a command in a container. @throws EngineError when it cannot be run, or `signal`'s reason when it fires. */
export type Probe = (containerId: string, command: readonly string[], signal: AbortSignal) => Promise<ProbeResult>;

interface Watch {
  /** Another start of the container has another watch. */
  readonly startedAt: string;
  readonly stop: AbortController;
}

/** Probes every running container that has a health check, and writes down what comes of it. */
export class HealthMonitor implements AsyncDisposable {
  readonly #context: ContainerContext;
  readonly #probe: Probe;
  readonly #watches = new Map<string, Watch>();
  readonly #running = new Set<Promise<void>>();
  readonly #endSubscription: () => void;

  constructor(context: ContainerContext, probe: Probe) {
    this.#context = context;
    this.#probe = probe;
    this.#endSubscription = context.store.onChange((_revision, changes) => {
      for (const [id, record] of changes) this.#follow(id, record);
    });
    for (const record of context.store.all()) this.#follow(record.container.id, record);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#endSubscription();
    for (const { stop } of this.#watches.values()) stop.abort();
    this.#watches.clear();
    await Promise.allSettled([...this.#running]);
  }

  #follow(id: string, record: ContainerRecord | undefined): void {
    const check = record === undefined ? undefined : healthCheckOf(record.container.config);
    const isProbed = record !== undefined && check !== undefined && stateOf(record) === 'running';
    const known = this.#watches.get(id);
    const startedAt = record === undefined ? '' : keyOf(record.container.state.startedAt);
    if (isProbed && known?.startedAt === startedAt) return;
    known?.stop.abort();
    this.#watches.delete(id);
    if (!isProbed) return;
    const watch: Watch = { startedAt, stop: new AbortController() };
    this.#watches.set(id, watch);
    const running = this.#watch(id, check, watch.stop.signal).catch((error: unknown) => {
      if (!watch.stop.signal.aborted) this.#context.log.warn({ containerId: id, err: error }, 'health check ended');
    });
    this.#running.add(running);
    void running.then(() => this.#running.delete(running));
  }

  async #watch(id: string, check: HealthCheck, signal: AbortSignal): Promise<void> {
    for (;;) {
      const record = this.#context.store.get(id);
      if (record === undefined) return;
      await delay(nextProbeMs(check, record.container.state, Date.now()), undefined, { signal });
      const start = timestampFromNs(this.#context.nowNs());
      const { exitCode, output } = await this.#probeOnce(id, check, signal);
      if (signal.aborted) return;
      await this.#record(id, check, { start, end: timestampFromNs(this.#context.nowNs()), exitCode, output }, signal);
    }
  }

  async #probeOnce(id: string, check: HealthCheck, signal: AbortSignal): Promise<ProbeResult> {
    const limit = AbortSignal.timeout(check.timeoutMs);
    try {
      return await this.#probe(id, check.command, AbortSignal.any([signal, limit]));
    } catch (error) {
      signal.throwIfAborted();
      if (!limit.aborted) return { exitCode: -1, output: messageOf(error) };
      return { exitCode: -1, output: `Health check exceeded timeout (${goDuration(check.timeoutMs)})` };
    }
  }

  /** Under the container's lock, on what it is by then. */
  #record(id: string, check: HealthCheck, result: container.HealthResult, signal: AbortSignal): Promise<void> {
    return this.#context.locks.run(id, async () => {
      const now = this.#context.store.get(id);
      if (signal.aborted || now === undefined || stateOf(now) !== 'running') return;
      const { state } = now.container;
      const health = healthAfter(check, state, result);
      const shown = { ...now.container, state: { ...state, health } };
      await this.#context.store.commit((batch) => {
        batch.put({ container: shown, internals: now.internals });
        if (health.status !== state.health?.status) batch.emit(healthChanged(shown, health.status));
      });
    });
  }
}

function keyOf(time: Timestamp | undefined): string {
  return time === undefined ? '' : `${time.seconds}.${time.nanos}`;
}

/** As Go prints a duration of whole milliseconds below an hour: `500ms`, `1.5s`, `30s`, `1m30s`. */
function goDuration(ms: number): string {
  if (ms < 1000) return `${ms}ms`;
  const minutes = Math.floor(ms / 60_000);
  const seconds = `${(ms % 60_000) / 1000}s`;
  return minutes === 0 ? seconds : `${minutes}m${seconds}`;
}
