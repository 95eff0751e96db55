import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import { invalidArgument, notFound } from '@flotilla/errors';
import { readHostsFile } from './hosts-file.js';
import type { Capability, CertificateFiles, RegistryHost } from './hosts-file.js';
import { addNetwork, isInside } from './networks.js';
import { parseUrl } from './parse-url.js';

/** One way to reach a registry. */
export interface Endpoint {
  /** Registry as names have it: `docker.io`, `127.0.0.1:5000`. */
  readonly domain: string;
  /** Without a path. */
  readonly origin: string;
  readonly host: string;
  /** Where the distribution API begins: `/v2` unless a hosts.toml says otherwise. */
  readonly apiPath: string;
  /** False: any certificate will do. */
  readonly verifyTls: boolean;
  /** Beside those of certs.d. */
  readonly certificates?: CertificateFiles;
  readonly isMirror: boolean;
  /** Absent: all. */
  readonly capabilities?: ReadonlySet<Capability>;
  /** `ns` parameter of every request: tells a mirror of several registries which one is meant (containerd's). */
  readonly namespace?: string;
}

export interface EndpointRules {
  /** Host[:port] or CIDR. Loopback addresses are insecure without being named. */
  readonly insecureRegistries: readonly string[];
  /** URLs of mirrors of Docker Hub, for which a hosts.toml of docker.io takes precedence. */
  readonly mirrors: readonly string[];
  /** Holds `HOST[:PORT]/hosts.toml`. */
  readonly certsDir: string;
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

  /**
   * @throws EngineError `invalidArgument` for a malformed hosts.toml; `notFound` when it leaves nobody to ask for this.
   */
  async candidates(domain: string, capability: Capability = 'pull'): Promise<Endpoint[]> {
    const file = await readHostsFile(this.#rules.certsDir, domain);
    const own = await this.#ownEndpoints(domain);
    const all =
      file === undefined
        ? [...(domain === hubDomain ? this.#hubMirrors() : []), ...own]
        : [
            ...file.mirrors.map((host) => this.#fromFile(domain, host, !own.some((it) => it.origin === host.origin))),
            ...(file.server === undefined ? own : [this.#fromFile(domain, file.server, false)]),
          ];
    const able = all.filter(({ capabilities }) => capabilities?.has(capability) !== false);
    if (able.length === 0) throw noHosts(capability, domain);
    return able;
  }

  #fromFile(domain: string, { origin, verifyTls, ...host }: RegistryHost, isMirror: boolean): Endpoint {
    const namespace = isMirror ? { namespace: domain } : {};
    const { host: name } = new URL(origin);
    const isTrusted = !verifyTls || this.#rules.insecureNames.has(name);
    return { domain, origin, host: name, ...host, verifyTls: !isTrusted, isMirror, ...namespace };
  }

  #hubMirrors(): Endpoint[] {
    return this.mirrors.map((url) => {
      const { origin, host, pathname } = new URL(url);
      const verifyTls = !this.#rules.insecureNames.has(host);
      return { domain: hubDomain, origin, host, apiPath: `${pathname}v2`, verifyTls, isMirror: true };
    });
  }

  async #ownEndpoints(domain: string): Promise<Endpoint[]> {
    const apiPath = '/v2';
    if (domain === hubDomain) {
      return [{ domain, origin: `https://${hubHost}`, host: hubHost, apiPath, verifyTls: true, isMirror: false }];
    }
    const secure = !(await this.isInsecure(domain));
    const https = { domain, origin: `https://${domain}`, host: domain, apiPath, verifyTls: secure, isMirror: false };
    return secure ? [https] : [https, { ...https, origin: `http://${domain}` }];
  }

  /** Whether HTTP and unverified TLS are allowed. A name counts as its addresses; one that does not resolve is secure. */
  async isInsecure(domain: string): Promise<boolean> {
    const { insecureNames, insecureNetworks } = this.#rules;
    if (insecureNames.has(domain)) return true;
    const name = new URL(`http://${domain}`).hostname.replace(/^\[|\]$/g, '');
    if (insecureNames.has(name)) return true;
    if (isIP(name) !== 0) return isInside(insecureNetworks, name);
    try {
      const addresses = await lookup(name, { all: true });
      return addresses.some(({ address }) => isInside(insecureNetworks, address));
    } catch {
      return false;
    }
  }
}

/** A hosts.toml left nobody to ask. */
export const noHosts = (capability: Capability, domain: string) =>
  notFound(`no ${capability} hosts for ${domain}: see its hosts.toml`);

interface CheckedRules {
  readonly insecureNames: ReadonlySet<string>;
  readonly insecureCidrs: readonly string[];
  readonly insecureNetworks: BlockList;
  readonly mirrors: readonly string[];
  readonly certsDir: string;
}

function checkRules({ insecureRegistries, mirrors, certsDir }: EndpointRules): CheckedRules {
  const insecureCidrs = ['127.0.0.0/8', '::1/128'];
  const insecureNames = new Set<string>();
  for (const entry of insecureRegistries) {
    if (entry.includes('/') && !entry.includes('://')) insecureCidrs.push(entry);
    else insecureNames.add(entry.replace(/^https?:\/\//, ''));
  }
  const insecureNetworks = new BlockList();
  for (const cidr of insecureCidrs) {
    if (!addNetwork(insecureNetworks, cidr)) {
      throw invalidArgument(`insecure registry ${cidr} is not valid: invalid CIDR address`);
    }
  }
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
    certsDir,
    mirrors: mirrors.map((it) => (it.endsWith('/') ? it : `${it}/`)),
  };
}
