import { invalidArgument } from '@flotilla/errors';
import { gelfAddress } from './address.js';
import { logAttributes, type LoggedContainer } from './log-attributes.js';
import type { GelfConfig } from './remote-config.js';

type Options = Readonly<Record<string, string>>;

export const GELF_OPTIONS = [
  'gelf-address',
  'gelf-compression-level',
  'gelf-compression-type',
  'gelf-tcp-max-reconnect',
  'gelf-tcp-reconnect-delay',
];

const BEST_SPEED = 1;
const DEFAULT_DELAY_MS = 1000;

/** @throws EngineError `invalidArgument`. */
export function gelfConfig(options: Options, tag: string, container: LoggedContainer): GelfConfig {
  const address = gelfAddress(options['gelf-address']);
  const isTcp = address.proto === 'tcp';
  const delay = tcpInteger(options, 'gelf-tcp-reconnect-delay', isTcp);
  return {
    kind: 'gelf',
    address,
    compression: isTcp ? tcpCompression(options) : compressionType(options),
    level: compressionLevel(options),
    fields: {
      _container_id: container.id,
      _container_name: container.name,
      _image_id: container.imageId,
      _image_name: container.imageName,
      _command: container.command.join(' '),
      _tag: tag,
      _created: container.createdAt,
      ...logAttributes(options, container, (name) => (name.startsWith('_') ? name : `_${name}`)),
    },
    retryWaitMs: delay === undefined ? DEFAULT_DELAY_MS : delay * 1000,
    maxRetries: tcpInteger(options, 'gelf-tcp-max-reconnect', isTcp) ?? Infinity,
  };
}

function tcpCompression(options: Options): 'none' {
  if (options['gelf-compression-type'] !== undefined || options['gelf-compression-level'] !== undefined) {
    throw invalidArgument('compression is only supported on UDP');
  }
  return 'none';
}

function compressionType(options: Options): GelfConfig['compression'] {
  const type = options['gelf-compression-type'] ?? 'gzip';
  if (type !== 'gzip' && type !== 'zlib' && type !== 'none') throw unknownValue(type, 'gelf-compression-type');
  return type;
}

function compressionLevel(options: Options): number {
  const text = options['gelf-compression-level'];
  if (text === undefined) return BEST_SPEED;
  if (!/^(-1|\d)$/.test(text)) throw unknownValue(text, 'gelf-compression-level');
  return Number(text);
}

function tcpInteger(options: Options, name: string, isTcp: boolean): number | undefined {
  const text = options[name];
  if (text === undefined) return undefined;
  if (!isTcp) throw invalidArgument(`"${name}" is only valid for TCP`);
  if (!/^\d{1,9}$/.test(text)) throw invalidArgument(`"${name}" must be a positive integer`);
  return Number(text);
}

function unknownValue(value: string, option: string): Error {
  return invalidArgument(`unknown value ${JSON.stringify(value)} for log opt "${option}" for gelf log driver`);
}
