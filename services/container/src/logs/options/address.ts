import { invalidArgument } from '@flotilla/errors';
import type { RemoteAddress } from './remote-config.js';

interface Split {
  readonly scheme: string;
  /** Empty when there is none. */
  readonly host: string;
  readonly port: number | undefined;
  readonly path: string;
}

/** `proto://host:port` or `proto:///path`. Undefined when it is neither. */
function splitUrl(text: string): Split | undefined {
  const match = /^([a-z+]+):\/\/(?:(\[[0-9a-fA-F:.]+(?:%\w+)?\]|[^/:[\]?#@\s]*)(?::(\d{1,5}))?)(\/[^?#\0]*)?$/.exec(
    text,
  );
  if (match === null) return undefined;
  const port = match[3] === undefined ? undefined : Number(match[3]);
  if (port !== undefined && (port < 1 || port > 65_535)) return undefined;
  return { scheme: match[1] ?? '', host: (match[2] ?? '').replace(/^\[|\]$/g, ''), port, path: match[4] ?? '' };
}

/** Option `syslog-address`. @throws EngineError `invalidArgument`. */
export function syslogAddress(text: string | undefined): RemoteAddress | undefined {
  if (text === undefined || text === '') return undefined;
  const url = splitUrl(text);
  if (url === undefined) throw invalidArgument(`syslog-address should be in form proto://address, got ${text}`);
  const { scheme, host, port, path } = url;
  if (scheme === 'unix' || scheme === 'unixgram') {
    if (path === '') throw invalidArgument(`syslog-address should be in form proto://address, got ${text}`);
    return { proto: scheme, path };
  }
  if (scheme !== 'udp' && scheme !== 'tcp' && scheme !== 'tcp+tls') {
    throw invalidArgument(`unsupported scheme: '${scheme}'`);
  }
  return { proto: scheme, host: host || 'localhost', port: port ?? 514 };
}

/** Option `gelf-address`. @throws EngineError `invalidArgument`. */
export function gelfAddress(text: string | undefined): RemoteAddress & { proto: 'udp' | 'tcp' } {
  if (text === undefined || text === '') throw invalidArgument('gelf-address is a required parameter');
  const url = splitUrl(text);
  if (url === undefined) throw invalidArgument(`gelf-address should be in form proto://address, got ${text}`);
  const { scheme, host, port } = url;
  if (scheme !== 'udp' && scheme !== 'tcp') throw invalidArgument('gelf: endpoint needs to be TCP or UDP');
  if (port === undefined) throw invalidArgument('gelf: please provide gelf-address as proto://host:port');
  return { proto: scheme, host: host || 'localhost', port };
}

/** Option `fluentd-address`. @throws EngineError `invalidArgument`. */
export function fluentdAddress(text: string | undefined): RemoteAddress {
  if (text === undefined || text === '') return { proto: 'tcp', host: '127.0.0.1', port: 24_224 };
  const url = splitUrl(text.includes('://') ? text : `tcp://${text}`);
  if (url === undefined) throw invalidArgument(`invalid fluentd-address ${text}`);
  const { scheme, host, port, path } = url;
  if (scheme === 'unix') {
    if (path === '' || path === '/') throw invalidArgument('path is empty');
    return { proto: 'unix', path };
  }
  if (scheme !== 'tcp' && scheme !== 'tls') throw invalidArgument(`unsupported scheme: ${scheme}`);
  if (path !== '' && path !== '/') {
    throw invalidArgument(`validate path in address: unexpected path in ${text}`);
  }
  return { proto: scheme === 'tls' ? 'tcp+tls' : 'tcp', host: host || '127.0.0.1', port: port ?? 24_224 };
}
