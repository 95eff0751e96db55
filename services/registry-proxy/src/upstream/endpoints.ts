import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import { invalidArgument } from '@flotilla/errors';
import { parseUrl } from './http-transport.js';

/** One way to reach a registry. */
export interface Endpoint {
  /** Registry as names have it: `docker.io`, `127.0.0.1:5000`. */
  readonly domain: string;
  /** Without a path. */
  readonly origin: string;
  readonly host: string;
  /** False: any certificate will do. */
  readonly verifyTls: boolean;
  readonly isMirror: boolean;
}

export interface EndpointRules {
  /** Host[:port] or CIDR. Loopback addresses are insecure without being named. */
  readonly insecureRegistries: readonly string[];
  /** URLs of mirrors of Docker Hub. */
  readonly mirrors: readonly string[];
}

const hubDomain = 'docker.io';
const hubHost = 'registry-1.docker.io';

/** Which addresses a registry name stands for, in the order to try (moby registry/service_v2.go). */
export class Endpoints {
  #rules: CheckedRules;

  /** @throws EngineError `invalidArgument` for a bad CIDR or mirror. */
  constructor(rules: EndpointRules) {
    this.#rules = checkRules(rules);
  }

  /** Check new rules; what is returned puts them in force. */
  prepare(rules: EndpointRules): () => void {
    const checked = checkRules(rules);
    return () => {
      this.#rules = checked;
    };
  }

  get insecureCidrs(): readonly string[] {
    return this.#rules.insecureCidrs;
  }

  get insecureNames(): readonly string[] {
    return [...this.#rules.insecureNames];
  }

  get mirrors(): readonly string[] {
    return this.#rules.mirrors;
  }

  async candidates(domain: string): Promise<Endpoint[]> {
    if (domain === hubDomain) {
      const mirrors = this.mirrors.map((url): Endpoint => {
        const { origin, host } = new URL(url);
        return { domain, origin, host, verifyTls: !this.#rules.insecureNames.has(host), isMirror: true };
      });
      return [...mirrors, { domain, origin: `https://${hubHost}`, host: hubHost, verifyTls: true, isMirror: false }];
    }
    const secure = !(await this.isInsecure(domain));
    const https: Endpoint = {
      domain,
      origin: `https://${domain}`,
      host: domain,
      verifyTls: secure,
      isMirror: false,
    };
    return secure ? [https] : [https, { ...https, origin: `http://${domain}` }];
  }

  /** Whether HTTP and unverified TLS are allowed. A name counts as its addresses; one that does not resolve is secure. */
  async isInsecure(domain: string): Promise<boolean> {
    const { insecureNames, insecureNetworks } = this.#rules;
    if (insecureNames.has(domain)) return true;
    const name = new URL(`http://${domain}`).hostname.replace(/^\[|\]$/g, '');
    if (insecureNames.has(name)) return true;
    if (isIP(name) !== 0) return insecureNetworks.check(name, isIP(name) === 6 ? 'ipv6' : 'ipv4');
    try {
      const addresses = await lookup(name, { all: true });
      return addresses.some(({ address, family }) => insecureNetworks.check(address, family === 6 ? 'ipv6' : 'ipv4'));
    } catch {
      return false;
    }
  }
}

interface CheckedRules {
  readonly insecureNames: ReadonlySet<string>;
  readonly insecureCidrs: readonly string[];
  readonly insecureNetworks: BlockList;
  readonly mirrors: readonly string[];
}

function checkRules({ insecureRegistries, mirrors }: EndpointRules): CheckedRules {
  const insecureCidrs = ['127.0.0.0/8', '::1/128'];
  const insecureNames = new Set<string>();
  for (const entry of insecureRegistries) {
    if (entry.includes('/') && !entry.includes('://')) insecureCidrs.push(entry);
    else insecureNames.add(entry.replace(/^https?:\/\//, ''));
  }
  const insecureNetworks = new BlockList();
  for (const cidr of insecureCidrs) addNetwork(insecureNetworks, cidr);
  for (const mirror of mirrors) {
    const url = parseUrl(mirror);
    if (url === null || !['http:', 'https:'].includes(url.protocol)) {
      throw invalidArgument(`invalid mirror: unsupported scheme or invalid URL in ${JSON.stringify(mirror)}`);
    }
  }
  return {
    insecureNames,
    insecureCidrs,
    insecureNetworks,
    mirrors: mirrors.map((it) => (it.endsWith('/') ? it : `${it}/`)),
  };
}

function addNetwork(networks: BlockList, cidr: string): void {
  const [address = '', bits = ''] = cidr.split('/');
  const family = isIP(address);
  const length = Number(bits);
  if (family === 0 || !/^\d+$/.test(bits) || length > (family === 6 ? 128 : 32)) {
    throw invalidArgument(`insecure registry ${cidr} is not valid: invalid CIDR address`);
  }
  networks.addSubnet(address, length, family === 6 ? 'ipv6' : 'ipv4');
}
