import { pino } from 'pino';
import type { DestinationStream, Logger as PinoLogger } from 'pino';

/** Fixed lower-case message, variable parts as fields: `log.info({ containerId }, 'container exited')`. */
export type Logger = PinoLogger;

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent';
export type LogFormat = 'json' | 'text';

export interface LoggerOptions {
  /** Name of the process, a field of every line. */
  service: string;
  level?: LogLevel;
  format?: LogFormat;
  /** Where lines go; standard error when absent. Lines are written synchronously, so that the last one of a dying process is seen. */
  destination?: DestinationStream;
}

// Values under these names are replaced wherever they stand up to two levels deep. Names are matched exactly, so both spellings that occur are listed.
const secretNames = [
  'authorization',
  'Authorization',
  'proxy-authorization',
  'x-registry-auth',
  'X-Registry-Auth',
  'x-registry-config',
  'X-Registry-Config',
  'registryAuth',
  'password',
  'pass',
  'token',
  'identityToken',
  'identitytoken',
  'registryToken',
  'registrytoken',
  'accessToken',
  'access_token',
  'refreshToken',
  'refresh_token',
  'secret',
  'credentials',
  'cookie',
];
const bracket = (name: string) => `["${name}"]`;
const redactPaths = secretNames.flatMap((name) => [bracket(name), `*${bracket(name)}`, `*.*${bracket(name)}`]);

/** Make the logger of a process. The level can be changed later with `setLevel`; children made with `child()` before that keep theirs. */
export function createLogger(options: LoggerOptions): Logger {
  const destination = options.destination ?? pino.destination({ fd: 2, sync: true });
  return pino(
    {
      base: { service: options.service },
      level: options.level ?? 'info',
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths: redactPaths, censor: '[redacted]' },
    },
    options.format === 'text' ? textDestination(destination) : destination,
  );
}

/** Change the level of a running logger. */
export function setLevel(log: Logger, level: LogLevel): void {
  log.level = level;
}

/** Lines as `2026-01-02T03:04:05.678Z INFO  service: message key=value`, made in process: a worker thread would cost 20 MiB in each service. */
function textDestination(sink: DestinationStream): DestinationStream {
  return { write: (line) => sink.write(`${renderText(line)}\n`) };
}

/** One JSON log line as text; a line that is not JSON stays as it is. */
export function renderText(line: string): string {
  let record: Record<string, unknown>;
  try {
    record = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return line.trimEnd();
  }
  const { time, level, service, msg, err, ...fields } = record;
  const parts = [
    String(time),
    String(level).toUpperCase().padEnd(5),
    `${String(service)}: ${typeof msg === 'string' ? msg : ''}`.trimEnd(),
  ];
  for (const [key, value] of Object.entries(fields)) parts.push(`${key}=${renderValue(value)}`);
  if (err !== undefined) {
    const { message, stack } = err as { message?: unknown; stack?: unknown };
    parts.push(`err=${renderValue(message)}`);
    if (typeof stack === 'string') parts.push(`\n${stack}`);
  }
  return parts.join(' ');
}

function renderValue(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text);
}

/** A logger that writes nothing: for tests and for library defaults. */
export function silentLogger(): Logger {
  return pino({ level: 'silent' });
}
