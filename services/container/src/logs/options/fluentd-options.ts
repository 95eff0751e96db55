import { invalidArgument } from '@flotilla/errors';
import { fluentdAddress } from './address.js';
import { durationMs, parseBool, parseInteger, ramBytes } from './go-values.js';
import { logAttributes, type LoggedContainer } from './log-attributes.js';
import type { FluentdConfig } from './remote-config.js';

type Options = Readonly<Record<string, string>>;

export const FLUENTD_OPTIONS = [
  'fluentd-address',
  'fluentd-async',
  'fluentd-async-connect',
  'fluentd-async-reconnect-interval',
  'fluentd-buffer-limit',
  'fluentd-max-retries',
  'fluentd-request-ack',
  'fluentd-retry-wait',
  'fluentd-sub-second-precision',
  'fluentd-write-timeout',
  'fluentd-read-timeout',
];

const RETRY_WAIT_MS = 1000;

/** @throws EngineError `invalidArgument`. */
export function fluentdConfig(options: Options, tag: string, container: LoggedContainer): FluentdConfig {
  for (const name of ['fluentd-async-reconnect-interval', 'fluentd-write-timeout', 'fluentd-read-timeout']) {
    given(options, name, durationMs);
  }
  fluentdBacklog(options);
  return {
    kind: 'fluentd',
    address: fluentdAddress(options['fluentd-address']),
    tag,
    fields: {
      container_id: container.id,
      container_name: `/${container.name}`,
      ...logAttributes(options, container),
    },
    subSecondPrecision: given(options, 'fluentd-sub-second-precision', parseBool) ?? false,
    requestAck: given(options, 'fluentd-request-ack', parseBool) ?? false,
    retryWaitMs: given(options, 'fluentd-retry-wait', durationMs) ?? RETRY_WAIT_MS,
    maxRetries: given(options, 'fluentd-max-retries', natural) ?? Infinity,
  };
}

/** How much may wait with `fluentd-async` and `fluentd-buffer-limit`, in bytes. @throws EngineError `invalidArgument`. */
export function fluentdBacklog(options: Options): number | undefined {
  const connect = given(options, 'fluentd-async-connect', parseBool);
  const isAsync = given(options, 'fluentd-async', parseBool);
  if (connect !== undefined && isAsync !== undefined) {
    throw invalidArgument("conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'");
  }
  const limit = given(options, 'fluentd-buffer-limit', ramBytes);
  return (isAsync ?? connect ?? false) ? limit : undefined;
}

function given<T>(options: Options, name: string, parse: (text: string) => T): T | undefined {
  const text = options[name];
  return text === undefined || text === '' ? undefined : parse(text);
}

function natural(text: string): number {
  const value = parseInteger(text);
  if (value < 0) throw invalidArgument(`strconv.ParseUint: parsing ${JSON.stringify(text)}: invalid syntax`);
  return value;
}
