import { TransportError } from './registry-error.js';

const unknownAuthority = 'tls: failed to verify certificate: x509: certificate signed by unknown authority';
const plainHttp = 'http: server gave HTTP response to HTTPS client';
const clientTimeout = 'net/http: request canceled (Client.Timeout exceeded while awaiting headers)';

/** Sentences of Go's net packages, which Docker users and their tools know, by Node's and undici's codes. */
const phrases: ReadonlyMap<string, (host: string) => string> = new Map([
  ['ECONNREFUSED', (host: string) => `dial tcp ${host}: connect: connection refused`],
  ['EHOSTUNREACH', (host: string) => `dial tcp ${host}: connect: no route to host`],
  ['ENETUNREACH', (host: string) => `dial tcp ${host}: connect: network is unreachable`],
  ['ETIMEDOUT', (host: string) => `dial tcp ${host}: connect: connection timed out`],
  ['UND_ERR_CONNECT_TIMEOUT', (host: string) => `dial tcp ${host}: i/o timeout`],
  ['ENOTFOUND', (host: string) => `dial tcp: lookup ${hostName(host)}: no such host`],
  ['EAI_AGAIN', (host: string) => `dial tcp: lookup ${hostName(host)}: Temporary failure in name resolution`],
  ['UND_ERR_HEADERS_TIMEOUT', () => clientTimeout],
  ['UND_ERR_BODY_TIMEOUT', (host: string) => `read tcp ${host}: i/o timeout`],
  ['ECONNRESET', (host: string) => `read tcp ${host}: connection reset by peer`],
  ['EPIPE', (host: string) => `write tcp ${host}: broken pipe`],
  ['UND_ERR_SOCKET', () => 'unexpected EOF'],
  ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', () => 'unexpected EOF'],
  [
    'ERR_TLS_CERT_ALTNAME_INVALID',
    (host: string) => `tls: failed to verify certificate: x509: certificate is not valid for ${hostName(host)}`,
  ],
  ['CERT_HAS_EXPIRED', () => 'tls: failed to verify certificate: x509: certificate has expired or is not yet valid'],
  ['CERT_NOT_YET_VALID', () => 'tls: failed to verify certificate: x509: certificate has expired or is not yet valid'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', () => unknownAuthority],
  ['SELF_SIGNED_CERT_IN_CHAIN', () => unknownAuthority],
  ['UNABLE_TO_GET_ISSUER_CERT', () => unknownAuthority],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', () => unknownAuthority],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', () => unknownAuthority],
  ['ERR_SSL_WRONG_VERSION_NUMBER', () => plainHttp],
  ['ERR_SSL_PACKET_LENGTH_TOO_LONG', () => plainHttp],
  ['EPROTO', () => plainHttp],
  ['ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED', () => 'remote error: tls: certificate required'],
  ['ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE', () => 'remote error: tls: bad certificate'],
]);
const lasting = new Set(['ENOTFOUND', 'EPROTO']);
const timeouts = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT']);
const unreachable = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
]);

/** A failed request as `Get "https://host/v2/": dial tcp ...`, as Go's client words it; `proxy`: what it went through. */
export function toTransportError(error: unknown, method: string, url: URL, proxy?: URL): TransportError {
  const code = codeOf(error);
  const isProxyDown = proxy !== undefined && unreachable.has(code);
  const said = phrases.get(code)?.(hostWithPort(isProxyDown ? proxy : url));
  const phrase = isProxyDown && said !== undefined ? `proxyconnect tcp: ${said}` : said;
  const text = phrase ?? (error instanceof Error && error.message !== '' ? error.message : code);
  const certificate = /^(?:ERR_SSL|ERR_TLS|CERT_|DEPTH_|SELF_|UNABLE_)/.test(code);
  return new TransportError(`${requestName(method, url)}: ${text}`, {
    isRetryable: !certificate && !lasting.has(code),
    isUnreachable: unreachable.has(code),
    isTimeout: timeouts.has(code),
    cause: error,
  });
}

/** `Get "https://host/path"`, as Go's client names a request; without the query, in which signed URLs carry secrets. */
export function requestName(method: string, url: URL): string {
  return `${method.slice(0, 1)}${method.slice(1).toLowerCase()} "${url.origin}${url.pathname}"`;
}

/** The innermost code: AggregateError of several addresses and undici's wrappers are opened. */
function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null) return '';
  const { code, cause, errors } = error as { code?: unknown; cause?: unknown; errors?: unknown };
  const inner: unknown = Array.isArray(errors) ? errors[0] : cause;
  const innerCode = inner === undefined ? '' : codeOf(inner);
  if (innerCode !== '') return innerCode;
  return typeof code === 'string' ? code : '';
}

function hostWithPort(url: URL): string {
  return url.port === '' ? `${url.hostname}:${url.protocol === 'https:' ? '443' : '80'}` : url.host;
}

function hostName(host: string): string {
  return host.slice(0, host.lastIndexOf(':'));
}
