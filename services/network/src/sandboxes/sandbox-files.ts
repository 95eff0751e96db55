import { join } from 'node:path';
import type { network } from '@flotilla/proto';
import { dnsAddress } from '../kernel/dns-address.js';
import type { NetworkSettings } from '../settings.js';
import type { NetworkStore } from '../store/network-store.js';
import type { SandboxRecord } from '../store/records.js';
import type { HostResolver } from './host-resolver.js';
import { hostsEntries } from './hosts-entries.js';
import { externalResolvConf, internalResolvConf, publicNameservers } from './resolv-conf.js';
import type { DnsWishes } from './resolv-conf.js';

/** What a container is told about its network in files. */
export class SandboxFiles {
  readonly #store: NetworkStore;
  readonly #settings: NetworkSettings;
  readonly #hostResolver: HostResolver;
  readonly #namespaceDirectory: string;

  constructor(store: NetworkStore, settings: NetworkSettings, hostResolver: HostResolver, namespaceDirectory: string) {
    this.#store = store;
    this.#settings = settings;
    this.#hostResolver = hostResolver;
    this.#namespaceDirectory = namespaceDirectory;
  }

  /** Empty for a container in the engine's own namespace. */
  namespacePath({ containerId, isHostMode }: SandboxRecord): string {
    return isHostMode ? '' : join(this.#namespaceDirectory, containerId);
  }

  resolvConf(sandbox: SandboxRecord): string {
    const host = this.#hostResolver.current();
    const wishes = this.#wishes(sandbox);
    if (sandbox.isHostMode)
      return externalResolvConf(host, {
        ...wishes,
        servers: wishes.servers.length > 0 ? wishes.servers : host.nameservers,
      });
    if (sandbox.dnsPorts !== undefined) return internalResolvConf(dnsAddress, host, wishes);
    return externalResolvConf(host, wishes);
  }

  hosts(sandbox: SandboxRecord): network.HostsEntry[] {
    return hostsEntries(sandbox, this.hostGateways());
  }

  /** What `host-gateway` means. */
  hostGateways(): string[] {
    const { hostGatewayIps } = this.#settings;
    if (hostGatewayIps.length > 0) return hostGatewayIps;
    const bridge = this.#store.networks().find((record) => record.predefined && record.driver === 'bridge');
    return (bridge?.ipam.pools ?? []).map(({ gateway }) => gateway).filter((gateway) => gateway !== '');
  }

  /** Name servers that 127.0.0.11 of a container asks: the engine is in the host's namespace and reaches its loopback. */
  upstreams(containerId: string): readonly string[] {
    const sandbox = this.#store.sandbox(containerId);
    const own = sandbox === undefined ? [] : this.#wishes(sandbox).servers;
    if (own.length > 0) return own;
    const { nameservers } = this.#hostResolver.current();
    return nameservers.length > 0 ? nameservers : publicNameservers;
  }

  /**
   * Whether names without dots are not to be asked of others, because the container's own resolver tries them with its
   * search domains: when somebody set `ndots` above 0, as dockerd does.
   */
  completesNames(containerId: string): boolean {
    const sandbox = this.#store.sandbox(containerId);
    return sandbox !== undefined && this.#wishes(sandbox).options.some((option) => /^ndots:0*[1-9]\d*$/.test(option));
  }

  #wishes({ dnsServers, dnsSearch, dnsOptions }: SandboxRecord): DnsWishes {
    const { dns, dnsSearch: search, dnsOptions: options } = this.#settings;
    return {
      servers: dnsServers.length > 0 ? dnsServers : dns,
      search: dnsSearch.length > 0 ? dnsSearch : search,
      options: dnsOptions.length > 0 ? dnsOptions : options,
    };
  }
}
