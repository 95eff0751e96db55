import { addressNumber, familyOf, numberAddress } from '@flotilla/netlink';
import type { Family } from '@flotilla/netlink';
import { internal, invalidArgument, permissionDenied } from '@flotilla/errors';
import type { PoolRecord } from '../store/records.js';
import { containsAddress, firstAddress, lastAddress, networkOf, parseCidr, sizeOf } from './cidr.js';
import type { Cidr } from './cidr.js';

/**
 * Addresses of one subnet, lowest free first. Held in memory only: what is in use follows from the endpoints recorded.
 */
export class AddressPool {
  readonly subnet: Cidr;
  readonly #range: Cidr;
  readonly #used = new Set<bigint>();
  /** No free address of the range is below this one. */
  #lowest: bigint;

  constructor(record: PoolRecord) {
    const subnet = parseCidr(record.subnet);
    if (subnet === undefined) throw invalidArgument(`invalid subnet ${record.subnet}`);
    this.subnet = networkOf(subnet);
    const range = record.ipRange === '' ? undefined : parseCidr(record.ipRange);
    this.#range = networkOf(range ?? subnet);
    this.#lowest = firstAddress(this.#range);
    if (sizeOf(this.subnet) > 2n) {
      // The network's own address and, for IPv4, the broadcast address.
      this.#used.add(firstAddress(this.subnet));
      if (this.family === 4) this.#used.add(lastAddress(this.subnet));
    }
    if (record.gateway !== '') this.#used.add(addressNumber(record.gateway));
    for (const address of Object.values(record.auxiliaryAddresses)) this.#used.add(addressNumber(address));
  }

  get family(): Family {
    return this.subnet.family;
  }

  contains(address: string): boolean {
    return containsAddress(this.subnet, address);
  }

  /** The lowest free address of the range; undefined when all are in use. */
  allocate(): string | undefined {
    const end = lastAddress(this.#range);
    for (let address = this.#lowest; address <= end; address++) {
      if (this.#used.has(address)) continue;
      this.#used.add(address);
      this.#lowest = address + 1n;
      return numberAddress(address, this.family);
    }
    this.#lowest = end + 1n;
    return undefined;
  }

  /** @throws EngineError `permissionDenied` when it is in use */
  reserve(address: string): void {
    const value = addressNumber(address);
    if (this.#used.has(value)) throw permissionDenied('Address already in use');
    this.#used.add(value);
  }

  release(address: string): void {
    const value = addressNumber(address);
    this.#used.delete(value);
    if (value < this.#lowest && value >= firstAddress(this.#range)) this.#lowest = value;
  }
}

/** The address pools of one network. */
export class NetworkAddresses {
  readonly #pools: AddressPool[];
  readonly #name: string;

  /** @param name how messages call the network */
  constructor(name: string, pools: readonly PoolRecord[]) {
    this.#name = name;
    this.#pools = pools.map((pool) => new AddressPool(pool));
  }

  /**
   * An address of a family: the wanted one, or the lowest free.
   *
   * @throws EngineError `permissionDenied` when it is in use, `invalidArgument` when no subnet has it, `internal` when
   * none is left
   */
  take(family: Family, wanted: string): { address: string; prefixLength: number } {
    const pools = this.#pools.filter((pool) => pool.family === family);
    if (wanted !== '') {
      const pool = pools.find((one) => one.contains(wanted));
      if (pool === undefined) throw invalidArgument(`no configured subnet contains IP address ${wanted}`);
      pool.reserve(wanted);
      return { address: numberAddress(addressNumber(wanted), family), prefixLength: pool.subnet.prefixLength };
    }
    for (const pool of pools) {
      const address = pool.allocate();
      if (address !== undefined) return { address, prefixLength: pool.subnet.prefixLength };
    }
    throw internal(`no available IPv${family} addresses on this network's address pools: ${this.#name}`, {
      isOutside: true,
    });
  }

  release(address: string): void {
    const family = familyOf(address);
    this.#pools.find((pool) => pool.family === family && pool.contains(address))?.release(address);
  }
}
