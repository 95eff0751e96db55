import { join } from 'node:path';
import { isLogDriver, type LogDriver } from '@flotilla/config';
import { invalidArgument } from '@flotilla/errors';
import type { LogSinkConfig } from '../log-config.js';
import { FILE_OPTIONS, jsonFileLimits, localLimits } from './file-options.js';
import { FLUENTD_OPTIONS, fluentdBacklog, fluentdConfig } from './fluentd-options.js';
import { GELF_OPTIONS, gelfConfig } from './gelf-options.js';
import { parseBool, ramBytes } from './go-values.js';
import {
  ATTRIBUTE_OPTIONS,
  checkAttributeOptions,
  logAttributes,
  type LoggedContainer,
  renderTag,
} from './log-attributes.js';
import type { RemoteConfig } from './remote-config.js';
import { checkSyslogFiles, SYSLOG_OPTIONS, syslogConfig } from './syslog-options.js';

type Options = Readonly<Record<string, string>>;

const ownOptions: Readonly<Record<Exclude<LogDriver, 'none'>, readonly string[]>> = {
  'json-file': FILE_OPTIONS,
  local: FILE_OPTIONS,
  syslog: SYSLOG_OPTIONS,
  gelf: GELF_OPTIONS,
  fluentd: FLUENTD_OPTIONS,
  journald: [],
};
const CACHE = 'cache-';
const cacheOptions = ['cache-disabled', ...[...FILE_OPTIONS, ...ATTRIBUTE_OPTIONS].map((name) => CACHE + name)];
/** Options that every driver takes. */
const commonOptions = ['mode', 'max-buffer-size', ...cacheOptions];
const DEFAULT_TAG = '{{.ID}}';
const MAX_BUFFER_BYTES = 1024 * 1024;
/** Without a cache to read from, what waits to be sent is all that is kept. */
const UNREAD_CACHE = { maxSizeBytes: 10 * 1024 * 1024, maxFiles: 2, compress: false };

/** Checks only: in the place of a container that does not exist yet. */
const nobody: LoggedContainer = {
  ...{ id: '', name: '', imageId: '', imageName: '', createdAt: '' },
  ...{ command: [], labels: {}, env: [] },
};

/** The daemon's options that count for a container that names another driver: those of its cache. */
export function cacheDefaults(options: Options): Record<string, string> {
  return Object.fromEntries(Object.entries(options).filter(([name]) => cacheOptions.includes(name)));
}

/** @throws EngineError `invalidArgument` in dockerd's words. */
export function checkLogOptions(driver: string, options: Options): void {
  if (driver === 'none') return;
  const mode = options['mode'] ?? '';
  if (!['', 'blocking', 'non-blocking'].includes(mode)) {
    throw invalidArgument(`logger: logging mode not supported: ${mode}`);
  }
  const buffer = options['max-buffer-size'];
  if (buffer !== undefined) {
    if (mode !== 'non-blocking') {
      throw invalidArgument("logger: max-buffer-size option is only supported with 'mode=non-blocking'");
    }
    try {
      ramBytes(buffer);
    } catch (cause) {
      throw invalidArgument(`error parsing option max-buffer-size: ${(cause as Error).message}`, { cause });
    }
  }
  if (!isLogDriver(driver) || driver === 'none') {
    throw invalidArgument(`logger: no log driver named '${driver}' is registered`);
  }
  const known = [...commonOptions, ...ATTRIBUTE_OPTIONS, ...ownOptions[driver]];
  for (const name of Object.keys(options)) if (!known.includes(name)) throw unknownOption(driver, name);
  const disabled = options['cache-disabled'] ?? '';
  try {
    if (disabled !== '') parseBool(disabled);
  } catch (cause) {
    throw invalidArgument(`invalid value for option cache-disabled: ${disabled}`, { cause });
  }
  checkAttributeOptions(options);
  if (ownOptions[driver] !== FILE_OPTIONS) localLimits(ofCache(options));
  const { remote } = sinkConfig('', driver, options, nobody);
  if (remote?.kind === 'syslog') checkSyslogFiles(remote);
}

function unknownOption(driver: LogDriver, name: string): Error {
  if (driver === 'local') return invalidArgument(`unknown log opt '${name}' for log driver local`);
  const quote = driver === 'gelf' ? '"' : "'";
  return invalidArgument(`unknown log opt ${quote}${name}${quote} for ${driver} log driver`);
}

/** Where and how the output of a container in `directory` is kept and sent; `options` were checked. */
export function sinkConfig(
  directory: string,
  driver: LogDriver,
  options: Options,
  container: LoggedContainer,
): LogSinkConfig {
  switch (driver) {
    case 'none':
      return { driver, path: '', isReadable: false };
    case 'json-file': {
      const path = join(directory, `${container.id}-json.log`);
      return { driver, path, isReadable: true, ...jsonFileLimits(options), ...fileAttributes(options, container) };
    }
    case 'local': {
      const path = join(directory, 'local-logs', 'container.log');
      return { driver, path, isReadable: true, ...localLimits(options), ...fileAttributes(options, container) };
    }
    default:
      return { driver, ...remoteSink(directory, options, container), remote: remoteOf(driver, options, container) };
  }
}

function remoteSink(
  directory: string,
  options: Options,
  container: LoggedContainer,
): Omit<LogSinkConfig, 'driver' | 'remote'> {
  const path = join(directory, 'container-cached.log');
  const isReadable = !parseBool(options['cache-disabled'] || 'false');
  const own = ofCache(options);
  const limits = isReadable ? localLimits(own) : UNREAD_CACHE;
  const buffer = options['max-buffer-size'];
  const maxBacklogBytes =
    options['mode'] === 'non-blocking'
      ? buffer === undefined
        ? MAX_BUFFER_BYTES
        : ramBytes(buffer)
      : fluentdBacklog(options);
  return {
    path,
    isReadable,
    ...limits,
    ...fileAttributes({ ...options, ...own }, container),
    ...(maxBacklogBytes === undefined ? {} : { maxBacklogBytes }),
  };
}

function remoteOf(
  driver: 'syslog' | 'gelf' | 'fluentd' | 'journald',
  options: Options,
  container: LoggedContainer,
): RemoteConfig {
  const tag = renderTag(options['tag'] ?? DEFAULT_TAG, container);
  switch (driver) {
    case 'syslog':
      return syslogConfig(options, tag);
    case 'gelf':
      return gelfConfig(options, tag, container);
    case 'fluentd':
      return fluentdConfig(options, tag, container);
    case 'journald':
      return {
        kind: 'journald',
        fields: {
          CONTAINER_ID: container.id.slice(0, 12),
          CONTAINER_ID_FULL: container.id,
          CONTAINER_NAME: container.name,
          CONTAINER_TAG: tag,
          IMAGE_NAME: container.imageName,
          SYSLOG_IDENTIFIER: tag,
          ...logAttributes(options, container, journalField),
        },
      };
  }
}

/** Upper case letters, digits and underscores, not beginning with one. */
function journalField(name: string): string {
  return name
    .toUpperCase()
    .replace(/[^A-Z0-9]/g, '_')
    .replace(/^_+/, '');
}

function ofCache(options: Options): Record<string, string> {
  const own = Object.entries(options).filter(([name]) => name.startsWith(CACHE) && name !== 'cache-disabled');
  return Object.fromEntries(own.map(([name, value]) => [name.slice(CACHE.length), value]));
}

/** Drivers that write files put in a tag only when they are asked for one. */
function fileAttributes(options: Options, container: LoggedContainer): Pick<LogSinkConfig, 'attributes'> {
  const attributes = logAttributes(options, container);
  if (options['tag'] !== undefined && options['tag'] !== '') attributes['tag'] = renderTag(options['tag'], container);
  return Object.keys(attributes).length === 0 ? {} : { attributes };
}
