import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { invalidArgument } from '@flotilla/errors';
import type { NatsSettings, ServiceName } from './base-config.js';
import { daemonSchema, fixedKeys, ignoredKeys, missingKeys } from './daemon-keys.js';
import type { DaemonFile } from './daemon-keys.js';
import type { DaemonFlags } from './daemon-flags.js';
import { checkDefaultBridge } from './default-bridge-keys.js';
import { parse, parseJsonObject } from './parse.js';

const defaultConfigFile = '/etc/flotilla/daemon.json';

/** Everything the launcher was asked for, checked, with defaults. */
export interface DaemonSettings {
  readonly dataRoot: string;
  readonly execRoot: string;
  readonly pidfile: string | undefined;
  readonly hosts: readonly string[];
  readonly nats: NatsSettings | undefined;
  /** Addresses of services that run elsewhere: the launcher does not start them. */
  readonly remoteServices: ReadonlyMap<ServiceName, string>;
  readonly log: { level: 'debug' | 'info' | 'warn' | 'error' | 'fatal'; format: 'text' | 'json' };
  /** daemon.json and flags merged; keys as in daemon.json, absent where not given. */
  readonly given: DaemonFile;
  /** Sentences about keys that were accepted but do nothing. */
  readonly notices: readonly string[];
}

/**
 * Merge daemon.json with the flags and check everything.
 *
 * A key in both is refused with both values (`runtimes` merges), an unknown one by name, one that is not implemented
 * with that word. The default file may be missing, a named one may not.
 *
 * @throws EngineError `invalidArgument`
 */
export function readDaemonSettings(flags: DaemonFlags): DaemonSettings {
  const path = flags.configFile ?? defaultConfigFile;
  const text = readOptional(path, flags.configFile !== undefined);
  const file = text === undefined || text.trim() === '' ? {} : parseJsonObject(text, path);
  const notices: string[] = [];
  const given = parse(
    daemonSchema,
    { ...accepted(file, path, notices), ...accepted(merged(file, flags, path), 'flags', notices) },
    text === undefined ? 'flags' : path,
  );
  checkLabels(given.labels ?? []);
  checkDefaultBridge(given);
  const execRoot = given['exec-root'] ?? '/run/flotilla';
  const debug = given.debug === true;
  return {
    dataRoot: given['data-root'] ?? '/var/lib/flotilla',
    execRoot,
    pidfile: given.pidfile,
    hosts: given.hosts ?? [`unix://${join(execRoot, 'docker.sock')}`],
    nats: natsOf(given),
    remoteServices: new Map(
      Object.entries(given.services ?? {}).map(([name, { address }]) => [name as ServiceName, address]),
    ),
    log: { level: debug ? 'debug' : (given['log-level'] ?? 'info'), format: given['log-format'] ?? 'text' },
    given,
    notices,
  };
}

function natsOf({ nats }: DaemonFile): NatsSettings | undefined {
  if (nats === undefined) return undefined;
  const { url, user, password } = nats;
  return { url, ...(user === undefined ? {} : { user }), ...(password === undefined ? {} : { pass: password }) };
}

function readOptional(path: string, mustExist: boolean): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (!mustExist && (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw invalidArgument(`cannot read configuration file ${path}: ${(error as Error).message}`, { cause: error });
  }
}

function merged(
  file: Record<string, unknown>,
  { settings, flagOf }: DaemonFlags,
  path: string,
): Record<string, unknown> {
  const result = { ...settings };
  for (const [key, value] of Object.entries(settings)) {
    const other = file[key];
    if (other === undefined) continue;
    if (key === 'runtimes') {
      result[key] = { ...(other as Record<string, unknown>), ...(value as Record<string, unknown>) };
      continue;
    }
    const [fromFlag, fromFile] = [JSON.stringify(value), JSON.stringify(other)];
    throw invalidArgument(
      `the following directives are specified both as a flag and in the configuration file: ${key} ` +
        `(from flag ${flagOf.get(key) ?? key}: ${fromFlag}, from file ${path}: ${fromFile})`,
    );
  }
  return result;
}

/** Without the keys that are fixed or ignored here. */
function accepted(settings: Record<string, unknown>, source: string, notices: string[]): Record<string, unknown> {
  const rest: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(settings)) {
    const values = fixedKeys[key];
    if (values !== undefined) {
      if (!values.includes(value))
        throw invalidArgument(`${source}: ${key}: ${JSON.stringify(value)} is not implemented`);
    } else if (missingKeys.includes(key)) throw invalidArgument(`${source}: ${key} is not implemented`);
    else if (ignoredKeys.includes(key)) notices.push(`${source}: ${key} is no longer used and does nothing`);
    else rest[key] = value;
  }
  return rest;
}

function checkLabels(labels: readonly string[]): void {
  const seen = new Map<string, string>();
  for (const label of labels) {
    const at = label.indexOf('=');
    const [key, value] = [label.slice(0, at), label.slice(at + 1)];
    const other = seen.get(key);
    if (other !== undefined && other !== value) {
      throw invalidArgument(`conflict labels for ${key}=${value} and ${key}=${other}`);
    }
    seen.set(key, value);
  }
}
