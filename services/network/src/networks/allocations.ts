import { familyOf } from '@flotilla/netlink';
import { notFound } from '@flotilla/errors';
import { NetworkAddresses } from '../addresses/address-pool.js';
import type { EndpointRecord, NetworkRecord } from '../store/records.js';

/**
 * Who holds what in each network, in memory: addresses, and containers on their way in. All of it is synchronous, so that
 * two requests never get the same address and a network with someone in it is never removed, without any lock.
 */
export class Allocations {
  readonly #addresses = new Map<string, NetworkAddresses>();
  readonly #holders = new Map<string, Set<string>>();

  addNetwork(record: NetworkRecord): void {
    this.#addresses.set(record.id, new NetworkAddresses(`${record.name} (${record.id})`, record.ipam.pools));
    this.#holders.set(record.id, new Set());
  }

  removeNetwork(id: string): void {
    this.#addresses.delete(id);
    this.#holders.delete(id);
  }

  /** Whether any endpoint is in the network or on its way in. */
  isHeld(networkId: string): boolean {
    return (this.#holders.get(networkId)?.size ?? 0) > 0;
  }

  addressesOf(record: NetworkRecord): NetworkAddresses {
    const addresses = this.#addresses.get(record.id);
    if (addresses === undefined) throw notFound(`network ${record.name} not found`);
    return addresses;
  }

  /** @throws EngineError `notFound` when the network was removed meanwhile */
  hold(record: NetworkRecord, endpointId: string): void {
    const holders = this.#holders.get(record.id);
    if (holders === undefined) throw notFound(`network ${record.name} not found`);
    holders.add(endpointId);
  }

  /** Take what a recorded endpoint has, at start. */
  restore(record: NetworkRecord, endpoint: EndpointRecord): void {
    this.hold(record, endpoint.id);
    for (const address of addressesOfEndpoint(endpoint)) {
      const family = familyOf(address);
      if (family !== undefined) this.addressesOf(record).take(family, address);
    }
  }

  /** Give back all that an endpoint has. */
  release(endpoint: EndpointRecord): void {
    const addresses = this.#addresses.get(endpoint.networkId);
    for (const address of addressesOfEndpoint(endpoint)) addresses?.release(address);
    this.#holders.get(endpoint.networkId)?.delete(endpoint.id);
  }
}

export function addressesOfEndpoint({ ipv4Address, ipv6Address }: EndpointRecord): string[] {
  return [ipv4Address, ipv6Address].filter((address) => address !== '');
}
