import { invalidArgument } from '@flotilla/errors';
import { parseDigest, sha256Of } from './digest.js';
import type { Digest } from './digest.js';
import { JsonReader } from './json.js';
import type { JsonObject } from './json.js';
import type { Platform } from './platform.js';

/** Largest image configuration that is read. */
export const maxConfigBytes = 8 * 1024 * 1024;

/** An image configuration (OCI image-spec config.md and Docker's own fields), checked. */
export interface ImageConfig {
  readonly platform: Platform;
  /** RFC 3339, undefined where the configuration does not say. */
  readonly created: string | undefined;
  readonly author: string;
  readonly comment: string;
  readonly dockerVersion: string;
  readonly run: RunConfig;
  /** DiffIDs, lowest first. */
  readonly diffIds: readonly Digest[];
  /** Oldest first. */
  readonly history: readonly HistoryStep[];
}

/** What a container of the image starts with. */
export interface RunConfig {
  readonly user: string;
  readonly exposedPorts: readonly string[];
  readonly env: readonly string[];
  /** undefined (null in JSON) differs from empty. */
  readonly entrypoint: readonly string[] | undefined;
  readonly cmd: readonly string[] | undefined;
  readonly volumes: readonly string[];
  readonly workingDir: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly stopSignal: string;
  readonly shell: readonly string[];
  readonly healthcheck: Healthcheck | undefined;
  readonly onBuild: readonly string[];
  readonly argsEscaped: boolean;
}

/** Durations in nanoseconds. */
export interface Healthcheck {
  readonly test: readonly string[];
  readonly interval: number;
  readonly timeout: number;
  readonly startPeriod: number;
  readonly startInterval: number;
  readonly retries: number;
}

export interface HistoryStep {
  readonly created: string | undefined;
  readonly createdBy: string;
  readonly author: string;
  readonly comment: string;
  /** True for a step that made no layer. */
  readonly emptyLayer: boolean;
}

const json = new JsonReader('image configuration');

/** @throws EngineError `invalidArgument` for anything that is not an image configuration. */
export function parseImageConfig(bytes: Uint8Array): ImageConfig {
  if (bytes.length > maxConfigBytes) {
    throw invalidArgument(`invalid image configuration: larger than ${maxConfigBytes} bytes`);
  }
  const document = json.parse(bytes);
  const rootfs = json.object(document, 'rootfs');
  // Docker's own phrase for anything that is not an image.
  if (rootfs === undefined) throw invalidArgument('invalid image JSON, no RootFS key');
  return {
    platform: {
      os: json.string(document, 'os'),
      architecture: json.string(document, 'architecture'),
      variant: json.string(document, 'variant'),
      osVersion: json.string(document, 'os.version'),
    },
    created: timestamp(document, 'created'),
    author: json.string(document, 'author'),
    comment: json.string(document, 'comment'),
    dockerVersion: json.string(document, 'docker_version'),
    run: parseRunConfig(json.object(document, 'config') ?? {}),
    diffIds: (json.strings(rootfs, 'diff_ids') ?? []).map(parseDigest),
    history: json.objects(document, 'history').map((step) => ({
      created: timestamp(step, 'created'),
      createdBy: json.string(step, 'created_by'),
      author: json.string(step, 'author'),
      comment: json.string(step, 'comment'),
      emptyLayer: json.boolean(step, 'empty_layer'),
    })),
  };
}

/** Read a `config` object (also the body of `POST /commit`). */
export function parseRunConfig(config: JsonObject): RunConfig {
  const health = json.object(config, 'Healthcheck');
  return {
    user: json.string(config, 'User'),
    exposedPorts: json.keys(config, 'ExposedPorts'),
    env: json.strings(config, 'Env') ?? [],
    entrypoint: stringOrList(config, 'Entrypoint'),
    cmd: stringOrList(config, 'Cmd'),
    volumes: json.keys(config, 'Volumes'),
    workingDir: json.string(config, 'WorkingDir'),
    labels: json.map(config, 'Labels'),
    stopSignal: json.string(config, 'StopSignal'),
    shell: json.strings(config, 'Shell') ?? [],
    healthcheck:
      health === undefined
        ? undefined
        : {
            test: json.strings(health, 'Test') ?? [],
            interval: json.integer(health, 'Interval'),
            timeout: json.integer(health, 'Timeout'),
            startPeriod: json.integer(health, 'StartPeriod'),
            startInterval: json.integer(health, 'StartInterval'),
            retries: json.integer(health, 'Retries'),
          },
    onBuild: json.strings(config, 'OnBuild') ?? [],
    argsEscaped: json.boolean(config, 'ArgsEscaped'),
  };
}

/** Docker's strslice: old images have a plain string. */
function stringOrList(config: JsonObject, key: string): string[] | undefined {
  const value = Object.hasOwn(config, key) ? config[key] : undefined;
  return typeof value === 'string' ? [value] : json.strings(config, key);
}

function timestamp(parent: JsonObject, key: string): string | undefined {
  const text = json.string(parent, key);
  if (text === '') return undefined;
  const form = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/;
  if (!form.test(text) || Number.isNaN(Date.parse(text))) {
    throw invalidArgument(`invalid image configuration: ${key} must be a time as in RFC 3339`);
  }
  // Go writes its zero time where nothing was known.
  return text.startsWith('0001-01-01T00:00:00Z') ? undefined : text;
}

/** The `config` object as image configurations have it; empty fields are left out as Go's omitempty does. */
export function renderRunConfig(run: RunConfig): Record<string, unknown> {
  const set = (keys: readonly string[]) => Object.fromEntries([...keys].sort().map((key) => [key, {}]));
  return {
    ...(run.user === '' ? {} : { User: run.user }),
    ...(run.exposedPorts.length === 0 ? {} : { ExposedPorts: set(run.exposedPorts) }),
    ...(run.env.length === 0 ? {} : { Env: run.env }),
    ...(run.entrypoint === undefined ? {} : { Entrypoint: run.entrypoint }),
    ...(run.cmd === undefined ? {} : { Cmd: run.cmd }),
    ...(run.healthcheck === undefined ? {} : { Healthcheck: renderHealthcheck(run.healthcheck) }),
    ...(run.argsEscaped ? { ArgsEscaped: true } : {}),
    ...(run.volumes.length === 0 ? {} : { Volumes: set(run.volumes) }),
    ...(run.workingDir === '' ? {} : { WorkingDir: run.workingDir }),
    ...(run.onBuild.length === 0 ? {} : { OnBuild: run.onBuild }),
    ...(run.labels.size === 0 ? {} : { Labels: Object.fromEntries(run.labels) }),
    ...(run.stopSignal === '' ? {} : { StopSignal: run.stopSignal }),
    ...(run.shell.length === 0 ? {} : { Shell: run.shell }),
  };
}

function renderHealthcheck(health: Healthcheck): Record<string, unknown> {
  const number = (name: string, value: number) => (value === 0 ? {} : { [name]: value });
  return {
    ...(health.test.length === 0 ? {} : { Test: health.test }),
    ...number('Interval', health.interval),
    ...number('Timeout', health.timeout),
    ...number('StartPeriod', health.startPeriod),
    ...number('StartInterval', health.startInterval),
    ...number('Retries', health.retries),
  };
}

/** A configuration that says nothing. */
export const emptyRunConfig: RunConfig = parseRunConfig({});

/**
 * Chain ids of a stack of layers, lowest first: `chain(0) = diff(0)`, `chain(n) = sha256(chain(n-1) + " " + diff(n))`
 * (OCI image-spec config.md).
 */
export function chainIds(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : sha256Of(`${below} ${diffId}`));
  }
  return chain;
}
