import { invalidArgument } from '@flotilla/errors';
import type { LogSinkConfig } from '../log-config.js';
import { humanBytes, parseBool, parseInteger } from './go-values.js';

type Options = Readonly<Record<string, string>>;
export type FileLimits = Pick<LogSinkConfig, 'maxSizeBytes' | 'maxFiles' | 'compress'>;

export const FILE_OPTIONS = ['max-size', 'max-file', 'compress'];

/** dockerd lets a json-file log grow without end. Not compressed: other programs read these files. */
const JSON_FILE_DEFAULT = { maxSizeBytes: 100_000_000, maxFiles: 5 };
/** As dockerd's. */
const LOCAL_DEFAULT = { maxSizeBytes: 20 * 1024 * 1024, maxFiles: 5 };

/** Rotation of the `json-file` driver. Whoever gives `max-size` alone gets one file, as with dockerd. @throws EngineError `invalidArgument`. */
export function jsonFileLimits(options: Options): FileLimits {
  const given = options['max-size'];
  const maxSizeBytes =
    given === undefined ? JSON_FILE_DEFAULT.maxSizeBytes : given === '-1' ? undefined : humanBytes(given);
  if (maxSizeBytes !== undefined && maxSizeBytes <= 0) throw invalidArgument('max-size must be a positive number');
  const files = options['max-file'];
  const maxFiles = files === undefined ? (given === undefined ? JSON_FILE_DEFAULT.maxFiles : 1) : parseInteger(files);
  if (maxFiles < 1) throw invalidArgument('max-file cannot be less than 1');
  const compress = options['compress'] !== undefined && parseBool(options['compress']);
  if (compress && (maxFiles === 1 || maxSizeBytes === undefined)) {
    throw invalidArgument('compress cannot be true when max-file is less than 2 or max-size is not set');
  }
  return { maxFiles, compress, ...(maxSizeBytes === undefined ? {} : { maxSizeBytes }) };
}

/** Rotation of the `local` driver and of the cache of drivers that send. @throws EngineError `invalidArgument`. */
export function localLimits(options: Options): FileLimits {
  const size = options['max-size'];
  const files = options['max-file'];
  const maxSizeBytes =
    size === undefined
      ? LOCAL_DEFAULT.maxSizeBytes
      : explain(`invalid value for max-size: ${size}`, () => humanBytes(size));
  const maxFiles =
    files === undefined
      ? LOCAL_DEFAULT.maxFiles
      : explain(`invalid value for max-file: ${files}`, () => parseInteger(files));
  const given = options['compress'];
  const compress = given === undefined || explain('invalid boolean value for compress', () => parseBool(given));
  if (maxFiles < 0) throw invalidArgument('max-file must not be negative');
  if (compress && maxFiles <= 1) throw invalidArgument('compression cannot be enabled when max file count is 1');
  return { maxFiles: Math.max(1, maxFiles), compress, ...(maxSizeBytes === 0 ? {} : { maxSizeBytes }) };
}

function explain<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (cause) {
    throw invalidArgument(`${what}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}
