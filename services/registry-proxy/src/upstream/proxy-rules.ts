import { BlockList, isIP } from 'node:net';
import { invalidArgument } from '@flotilla/errors';
import { addNetwork, isInside } from './networks.js';
import { parseUrl } from './parse-url.js';

/** The `proxies` of daemon.json; empty texts mean none. */
export interface ProxyRules {
  readonly httpProxy: string;
  readonly httpsProxy: string;
  readonly noProxy: string;
}

/** Which proxy a URL goes through. */
export type ProxyChoice = (url: URL) => URL | undefined;

/**
 * Read proxy rules as Go's httpproxy does, which Docker users know: loopback is never proxied; `no-proxy` holds hosts
 * (with their subdomains), `.domain` (subdomains only), addresses, networks, each with or without a port, or `*`.
 *
 * @throws EngineError `invalidArgument` for a proxy that is no URL; it does not repeat the URL, which may hold a password.
 */
export function proxyChoice(rules: ProxyRules | undefined): ProxyChoice {
  if (rules === undefined) return () => undefined;
  const http = proxyUrl('http-proxy', rules.httpProxy);
  const https = proxyUrl('https-proxy', rules.httpsProxy);
  const exceptions = rules.noProxy
    .split(',')
    .map((entry) => exception(entry.trim().toLowerCase()))
    .filter((it) => it !== undefined);
  return (url) => {
    const proxy = url.protocol === 'https:' ? https : http;
    if (proxy === undefined) return undefined;
    const host = url.hostname.replace(/^\[|\]$/g, '').toLowerCase();
    if (host === 'localhost' || isInside(loopback, host)) return undefined;
    const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port;
    return exceptions.some((isExcepted) => isExcepted(host, port)) ? undefined : proxy;
  };
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

function proxyUrl(key: string, text: string): URL | undefined {
  if (text === '') return undefined;
  const url = parseUrl(text.includes('://') ? text : `http://${text}`);
  if (url === null || url.hostname === '' || !['http:', 'https:'].includes(url.protocol)) {
    throw invalidArgument(`proxies.${key}: expected an http(s) URL`);
  }
  return url;
}

function exception(entry: string): ((host: string, port: string) => boolean) | undefined {
  if (entry === '') return undefined;
  if (entry === '*') return () => true;
  if (entry.includes('/')) {
    const network = new BlockList();
    return addNetwork(network, entry) ? (host) => isInside(network, host) : undefined;
  }
  const parts = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(entry);
  const name = (isIP(entry) !== 0 ? entry : (parts?.[1] ?? entry)).replace(/^\[|\]$/g, '').replace(/^\*\./, '.');
  const wantedPort = isIP(entry) !== 0 ? undefined : parts?.[2];
  const subdomains = name.startsWith('.') ? name : `.${name}`;
  return (host, port) =>
    (wantedPort === undefined || wantedPort === port) &&
    (host === name || (isIP(name) === 0 && host.endsWith(subdomains)));
}
