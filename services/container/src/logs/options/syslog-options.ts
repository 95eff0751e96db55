import { existsSync, readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { invalidArgument } from '@flotilla/errors';
import { syslogAddress } from './address.js';
import type { SyslogConfig, SyslogFormat, TlsFiles } from './remote-config.js';

type Options = Readonly<Record<string, string>>;

export const SYSLOG_OPTIONS = [
  'syslog-address',
  'syslog-facility',
  'syslog-format',
  'syslog-tls-ca-cert',
  'syslog-tls-cert',
  'syslog-tls-key',
  'syslog-tls-skip-verify',
];

const facilities = [
  ...['kern', 'user', 'mail', 'daemon', 'auth', 'syslog', 'lpr', 'news', 'uucp', 'cron', 'authpriv', 'ftp'],
  ...['', '', '', '', 'local0', 'local1', 'local2', 'local3', 'local4', 'local5', 'local6', 'local7'],
];
const DAEMON = 3;
const formats: ReadonlyMap<string, SyslogFormat> = new Map([
  ['', 'unix'],
  ['rfc3164', 'rfc3164'],
  ['rfc5424', 'rfc5424'],
  ['rfc5424micro', 'rfc5424micro'],
]);

/** @throws EngineError `invalidArgument`. */
export function syslogConfig(options: Options, tag: string): SyslogConfig {
  const address = syslogAddress(options['syslog-address']);
  const format = formats.get(options['syslog-format'] ?? '');
  if (format === undefined) throw invalidArgument('Invalid syslog format');
  return {
    kind: 'syslog',
    facility: parseFacility(options['syslog-facility']),
    format,
    tag: `docker/${tag}`,
    ...(address === undefined ? {} : { address }),
    ...(address?.proto === 'tcp+tls' ? { tls: tlsFiles(options) } : {}),
  };
}

function parseFacility(text: string | undefined): number {
  if (text === undefined || text === '') return DAEMON;
  const named = facilities.indexOf(text);
  if (named >= 0) return named;
  if (/^\d{1,2}$/.test(text) && Number(text) <= 23) return Number(text);
  throw invalidArgument('invalid syslog facility');
}

function tlsFiles(options: Options): TlsFiles {
  const files = {
    ca: options['syslog-tls-ca-cert'],
    cert: options['syslog-tls-cert'],
    key: options['syslog-tls-key'],
  };
  if ((files.cert === undefined) !== (files.key === undefined)) {
    throw invalidArgument('could not load X509 key pair: both syslog-tls-cert and syslog-tls-key are needed');
  }
  const given = Object.fromEntries(Object.entries(files).filter((entry) => entry[1] !== undefined));
  // As dockerd: its presence counts, whatever its value.
  return { ...given, skipsVerify: options['syslog-tls-skip-verify'] !== undefined };
}

/** Looks at the files that a configuration names. @throws EngineError `invalidArgument`. */
export function checkSyslogFiles({ address, tls }: SyslogConfig): void {
  if (address !== undefined && 'path' in address && !existsSync(address.path)) {
    throw invalidArgument(`stat ${address.path}: no such file or directory`);
  }
  if (tls === undefined) return;
  const { ca, cert, key } = tls;
  try {
    createSecureContext({
      ...(ca === undefined ? {} : { ca: readFileSync(ca) }),
      ...(cert === undefined || key === undefined ? {} : { cert: readFileSync(cert), key: readFileSync(key) }),
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw invalidArgument(`could not read the certificates of syslog-tls: ${reason}`, { cause });
  }
}
