import { invalidArgument, notFound, permissionDenied } from '@flotilla/errors';
import { AddressPool } from '../addresses/address-pool.js';
import { cidrText, overlaps, parseCidr } from '../addresses/cidr.js';
import type { Cidr } from '../addresses/cidr.js';
import { chooseSubnet, defaultIpv6Pool } from '../addresses/subnet-choice.js';
import type { KernelCalls } from '../kernel/kernel.js';
import type { NetworkSettings } from '../settings.js';
import type { NetworkStore } from '../store/network-store.js';
import type { NetworkRecord, PoolRecord } from '../store/records.js';

export interface SubnetsDeps {
  store: NetworkStore;
  kernel: KernelCalls;
  settings: NetworkSettings;
}

/** Which subnets are taken, by networks and by the host's routes, and which one a network gets that names none. */
export class Subnets {
  readonly #deps: SubnetsDeps;

  constructor(deps: SubnetsDeps) {
    this.#deps = deps;
  }

  /** @throws EngineError `permissionDenied` when another network has some of it */
  requireFree(subnet: Cidr): void {
    if (this.#ofNetworks().some((other) => overlaps(other, subnet)))
      throw permissionDenied('invalid pool request: Pool overlaps with other one on this address space');
  }

  /**
   * A subnet of the engine's pools.
   *
   * @param except a network whose own subnet is not in the way
   * @throws EngineError `notFound` when the pools are used up
   */
  async choose(family: 4 | 6, except?: NetworkRecord): Promise<string> {
    const { kernel, settings, store } = this.#deps;
    const own = new Set(store.networks().flatMap((record) => record.bridge?.name ?? []));
    const routes = (await kernel.call('hostRoutes', null)).filter(({ linkName }) => !own.has(linkName));
    const taken = [
      ...this.#ofNetworks(except),
      ...routes.flatMap((route) => parseCidr(`${route.address}/${route.prefixLength}`) ?? []),
    ];
    const configured = settings.pools.filter(({ base }) => base.family === family);
    const pools = family === 6 && configured.length === 0 ? [defaultIpv6Pool(settings.engineId)] : configured;
    const subnet = chooseSubnet(pools, taken);
    if (subnet === undefined) throw notFound('all predefined address pools have been fully subnetted');
    return cidrText(subnet);
  }

  #ofNetworks(except?: NetworkRecord): Cidr[] {
    return this.#deps.store
      .networks()
      .filter((record) => record.id !== except?.id && !record.configOnly)
      .flatMap((record) => record.ipam.pools.flatMap(({ subnet }) => parseCidr(subnet) ?? []));
  }
}

/**
 * A pool with its gateway, when it is to have one: the one that was asked for, or the first free address of its range.
 *
 * @throws EngineError `invalidArgument` when there is none
 */
export function completePool(pool: Partial<PoolRecord> & { subnet: string }, hasGateway = true): PoolRecord {
  const complete: PoolRecord = { ipRange: '', gateway: '', auxiliaryAddresses: {}, ...pool };
  if (!hasGateway || complete.gateway !== '') return complete;
  const gateway = new AddressPool(complete).allocate();
  if (gateway === undefined)
    throw invalidArgument('failed to allocate gateway (): No available addresses on this pool');
  return { ...complete, gateway };
}

export function familyOfPool({ subnet }: PoolRecord): 4 | 6 | undefined {
  return parseCidr(subnet)?.family;
}
