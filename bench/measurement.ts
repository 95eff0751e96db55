import type { EngineApi } from './engine-api.js';

/** One of the engines while it runs, as a measurement sees it. podman has no API here: only its commands. */
export interface BenchEngine {
  readonly name: 'flotilla' | 'dockerd' | 'podman';
  readonly api: EngineApi;
  /** Reference prefix of the registry in the engine's namespace. */
  readonly registry: string;
  /** A second registry, empty at first, to push to. */
  readonly uploads: { readonly prefix: string; clear(): void };
  /** A directory of this engine's measurements, on the same storage as its data root. */
  readonly scratch: string;
  /** Throw away downloaded blobs that an engine keeps beside its images, so that the next pull is one from the registry. */
  forgetDownloads(): void;
  /** Requests for blobs that the registry has answered with content. */
  blobDownloads(): number;
  /** Run the docker CLI against this engine, or podman in its place; stdout discarded. */
  cli(args: readonly string[], input?: Buffer): void;
  /** Shell line run in the engine's namespace, where `docker` means this engine. */
  shell(line: string): void;
  /** Run a program in the engine's namespace. @returns its stdout */
  read(command: readonly string[]): string;
  /** Stop the engine and start it again. @returns milliseconds from the start to the first 200 of `/containers/json` */
  restart(): Promise<number>;
  /** Proportional set size of the engine's own processes (no shims), in KiB. */
  pssKib(): number;
  /** Proportional set size of all shims that the engine started, in KiB. */
  shimPssKib(): number;
}

/** A question, how often it is asked of each engine in turn, and what its number means. */
export interface Measurement {
  readonly title: string;
  readonly unit: 'ms' | 'req/s' | 'MB/s' | 'Gbit/s' | 'MiB' | 'requests';
  readonly rounds: number;
  /** Aim of the ratio flotilla / dockerd. */
  readonly aim?: { kind: 'at most' | 'at least'; ratio: number };
  /** podman does the same with the same command: its figure stands beside the others'. */
  readonly withPodman?: boolean;
  prepare?(engine: BenchEngine): Promise<void> | void;
  /** @returns undefined where the engine does not do this. */
  measure(engine: BenchEngine): Promise<number | undefined> | number | undefined;
  cleanUp?(engine: BenchEngine): Promise<void> | void;
}

/** Wall time of an action in milliseconds. */
export async function elapsedMs(action: () => unknown): Promise<number> {
  const started = performance.now();
  await action();
  return performance.now() - started;
}

/** Middle value. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2;
}
