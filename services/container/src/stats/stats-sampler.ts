import { type ContainerRecord, type ShownContainer } from '../store/container-record.js';
import { encodeSpec } from '../spec/index.js';
import type { CpuStats } from './cgroup-stats.js';

const neverRead = '0001-01-01T00:00:00Z';
const noCpu: CpuStats = {
  cpu_usage: { total_usage: 0, usage_in_kernelmode: 0, usage_in_usermode: 0 },
  throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
};

export interface StatsOptions {
  /** Every second, until the container is removed. */
  readonly stream: boolean;
  /** One answer at once, without the sample before it. */
  readonly oneShot: boolean;
  readonly signal: AbortSignal;
}

/** What was measured of a run of a container at one moment. */
export interface StatsSample {
  /** Of the run's first process: another run has another. */
  readonly pid: number;
  /** When, in RFC 3339. */
  readonly read: string;
  readonly cpu: CpuStats;
  /** The other members of Docker's stats object. */
  readonly rest: object;
}

export interface StatsSamplerDeps {
  /** @throws EngineError `notFound`. */
  readonly resolve: (name: string) => ContainerRecord;
  readonly get: (id: string) => ContainerRecord | undefined;
  /** undefined when it does not run. */
  readonly sample: (record: ContainerRecord) => StatsSample | undefined;
  readonly periodMs?: number;
}

/**
 * Docker's stats objects as JSON. A container is measured once a second for all who ask at the same time, and not at all while nobody asks.
 * Who reads slowly misses samples, and nothing is kept for him.
 */
export class StatsSampler {
  readonly #deps: StatsSamplerDeps;
  readonly #samplings = new Map<string, Sampling>();

  constructor(deps: StatsSamplerDeps) {
    this.#deps = deps;
  }

  /** How many containers are being measured. */
  get size(): number {
    return this.#samplings.size;
  }

  /**
   * Without `stream` there is one object, with the sample of a second before in `precpu_stats` unless `oneShot`. A container that does not
   * run gives an empty one.
   *
   * @throws EngineError `notFound`
   */
  async *read(name: string, { stream, oneShot, signal }: StatsOptions): AsyncGenerator<string, void, undefined> {
    const { id } = this.#deps.resolve(name).container;
    const sampling = this.#samplings.get(id) ?? new Sampling(id, this.#deps);
    this.#samplings.set(id, sampling);
    sampling.users += 1;
    try {
      let round = sampling.round;
      while (round !== undefined) {
        if (oneShot) yield statsText({ ...round, before: undefined });
        // What is asked for once needs a second sample to tell how busy it is.
        else if (stream || round.before !== undefined || round.now === undefined)
          yield (round.text ??= statsText(round));
        else {
          round = await sampling.after(round, signal);
          continue;
        }
        if (!stream) return;
        round = await sampling.after(round, signal);
      }
    } finally {
      sampling.users -= 1;
      if (sampling.users === 0) {
        sampling.stop();
        if (this.#samplings.get(id) === sampling) this.#samplings.delete(id);
      }
    }
  }
}

interface Round {
  readonly shown: ShownContainer;
  readonly now: StatsSample | undefined;
  /** Of the same run, a period earlier. */
  readonly before: StatsSample | undefined;
  /** What all who have the round are given. */
  text?: string;
}

/** One container that is measured. */
class Sampling {
  /** Of readers; who counts himself out last stops it. */
  users = 0;
  /** The newest; undefined once the container is removed. */
  round: Round | undefined;
  readonly #id: string;
  readonly #deps: StatsSamplerDeps;
  readonly #waiting = new Set<() => void>();
  readonly #timer: NodeJS.Timeout;

  constructor(id: string, deps: StatsSamplerDeps) {
    this.#id = id;
    this.#deps = deps;
    this.round = this.#take();
    this.#timer = setInterval(() => {
      this.round = this.#take();
      for (const wake of [...this.#waiting]) wake();
    }, deps.periodMs ?? 1000);
  }

  /** The newest round as soon as it is another than this; undefined when there are no more, or after `signal`. */
  async after(last: Round, signal: AbortSignal): Promise<Round | undefined> {
    if (this.round === last && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiting.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener('abort', wake, { once: true });
      });
    }
    return signal.aborted ? undefined : this.round;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #take(): Round | undefined {
    const record = this.#deps.get(this.#id);
    if (record === undefined) return undefined;
    const now = this.#deps.sample(record);
    const last = this.round?.now;
    return { shown: record.container, now, before: last?.pid === now?.pid ? last : undefined };
  }
}

function statsText({ shown, now, before }: Round): string {
  return encodeSpec({
    name: `/${shown.name}`,
    id: shown.id,
    read: now?.read ?? neverRead,
    preread: before?.read ?? neverRead,
    num_procs: 0,
    storage_stats: {},
    cpu_stats: now?.cpu ?? noCpu,
    precpu_stats: before?.cpu ?? noCpu,
    ...(now?.rest ?? { pids_stats: {}, blkio_stats: {}, memory_stats: {} }),
  });
}
