import { addressBytes, addressText, familyOf } from '@flotilla/netlink';
import { addressesOfEndpoint } from '../networks/allocations.js';
import type { EndpointRecord, NetworkRecord, SandboxRecord } from '../store/records.js';

interface NetworkNames {
  name: string;
  isInternal: boolean;
  /** Endpoints by lower-case name. */
  byName: Map<string, EndpointRecord[]>;
  /** Container name by canonical address. */
  byAddress: Map<string, string>;
}

/** Names and addresses of the containers on user-defined networks, for DNS. */
export class NameIndex {
  readonly #networks = new Map<string, NetworkNames>();
  readonly #sandboxes = new Map<string, SandboxRecord>();
  readonly #networkOf: (id: string) => NetworkRecord | undefined;

  constructor(networkOf: (id: string) => NetworkRecord | undefined) {
    this.#networkOf = networkOf;
  }

  /** Take in a sandbox as it is now. */
  set(sandbox: SandboxRecord): void {
    this.delete(sandbox.containerId);
    this.#sandboxes.set(sandbox.containerId, sandbox);
    for (const endpoint of sandbox.endpoints) {
      const names = this.#namesOf(endpoint.networkId);
      if (names === undefined) continue;
      for (const name of endpoint.dnsNames.map((one) => one.toLowerCase())) {
        const list = names.byName.get(name);
        if (list === undefined) names.byName.set(name, [endpoint]);
        else list.push(endpoint);
      }
      for (const address of canonicalAddresses(endpoint)) names.byAddress.set(address, sandbox.containerName);
    }
  }

  delete(containerId: string): void {
    const sandbox = this.#sandboxes.get(containerId);
    if (sandbox === undefined) return;
    this.#sandboxes.delete(containerId);
    for (const endpoint of sandbox.endpoints) {
      const names = this.#networks.get(endpoint.networkId);
      if (names === undefined) continue;
      for (const name of endpoint.dnsNames.map((one) => one.toLowerCase())) {
        const rest = (names.byName.get(name) ?? []).filter((other) => other.id !== endpoint.id);
        if (rest.length === 0) names.byName.delete(name);
        else names.byName.set(name, rest);
      }
      for (const address of canonicalAddresses(endpoint)) names.byAddress.delete(address);
      if (names.byName.size === 0) this.#networks.delete(endpoint.networkId);
    }
  }

  /**
   * Addresses of a name as one container sees it: of its own networks only, the first one where the name has any. Undefined
   * when nobody has the name; the list is empty when its bearers have no address of the family. Several come in random order.
   */
  lookup(containerId: string, name: string, family: 4 | 6): string[] | undefined {
    let isKnown = false;
    for (const endpoint of this.#sandboxes.get(containerId)?.endpoints ?? []) {
      const names = this.#networks.get(endpoint.networkId);
      if (names === undefined) continue;
      const bearers = this.#bearers(endpoint, names, name);
      if (bearers === undefined) continue;
      isKnown = true;
      const addresses = bearers
        .map((bearer) => (family === 4 ? bearer.ipv4Address : bearer.ipv6Address))
        .filter((address) => address !== '');
      if (addresses.length > 0) return shuffled(addresses);
    }
    return isKnown ? [] : undefined;
  }

  /** The full name of the container at an address on one of the asker's networks. */
  reverse(containerId: string, address: string): string | undefined {
    const canonical = familyOf(address) === undefined ? address : addressText(addressBytes(address));
    for (const endpoint of this.#sandboxes.get(containerId)?.endpoints ?? []) {
      const names = this.#networks.get(endpoint.networkId);
      const name = names?.byAddress.get(canonical);
      if (names !== undefined && name !== undefined) return `${name}.${names.name}`;
    }
    return undefined;
  }

  /** Whether the container may ask the outside: not when all its networks are internal. */
  reachesOutside(containerId: string): boolean {
    return (this.#sandboxes.get(containerId)?.endpoints ?? []).some(
      (endpoint) => this.#networkOf(endpoint.networkId)?.internal === false,
    );
  }

  #bearers(endpoint: EndpointRecord, names: NetworkNames, name: string): EndpointRecord[] | undefined {
    const suffix = `.${names.name.toLowerCase()}`;
    const short = name.endsWith(suffix) ? name.slice(0, -suffix.length) : name;
    for (const link of endpoint.links) {
      const [container = '', alias = container] = link.split(':');
      if (alias.toLowerCase() === short) return names.byName.get(container.toLowerCase());
    }
    return names.byName.get(name) ?? names.byName.get(short);
  }

  #namesOf(networkId: string): NetworkNames | undefined {
    const known = this.#networks.get(networkId);
    if (known !== undefined) return known;
    const record = this.#networkOf(networkId);
    if (record === undefined || record.predefined) return undefined;
    const names: NetworkNames = {
      name: record.name,
      isInternal: record.internal,
      byName: new Map(),
      byAddress: new Map(),
    };
    this.#networks.set(networkId, names);
    return names;
  }
}

/** As a reverse name reads: an address can be given in several ways. */
function canonicalAddresses(endpoint: EndpointRecord): string[] {
  return addressesOfEndpoint(endpoint).map((address) => addressText(addressBytes(address)));
}

function shuffled<T>(list: T[]): T[] {
  for (let last = list.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    const [a, b] = [list[last], list[other]];
    if (a !== undefined && b !== undefined) [list[last], list[other]] = [b, a];
  }
  return list;
}
