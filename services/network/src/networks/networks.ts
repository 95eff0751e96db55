import { KeyedLocks } from '@flotilla/store';
import type { HybridClock } from '@flotilla/store';
import {
  alreadyExists,
  invalidArgument,
  isEngineError,
  messageOf,
  notFound,
  permissionDenied,
  unimplemented,
} from '@flotilla/errors';
import { network as proto } from '@flotilla/proto';
import type { Logger } from '@flotilla/log';
import { cidrText, firstAddress, overlaps, parseCidr } from '../addresses/cidr.js';
import type { Cidr } from '../addresses/cidr.js';
import { AddressPool } from '../addresses/address-pool.js';
import { macForAddress } from '../addresses/mac-address.js';
import { chooseSubnet, defaultIpv6Pool } from '../addresses/subnet-choice.js';
import { bridgeNameOf, newId } from '../engine-names.js';
import { kernelFailure } from '../kernel/kernel.js';
import type { KernelCalls } from '../kernel/kernel.js';
import type { NetworkSettings } from '../settings.js';
import type { NetworkStore, Receipt } from '../store/network-store.js';
import type { BridgeRecord, NetworkDriver, NetworkRecord, PoolRecord } from '../store/records.js';
import type { Allocations } from './allocations.js';
import { bridgeSpec } from './bridge-spec.js';
import { validatePools } from './ipam-validation.js';
import { networkCreated, networkDestroyed } from './network-events.js';
import { parseBridgeOptions } from './network-options.js';
import type { BridgeOptions } from './network-options.js';
import { checkParentIsFree, parentFailure, parentSpec, parseParentOptions } from './parent-options.js';

export interface NetworksDeps {
  store: NetworkStore;
  kernel: KernelCalls;
  allocations: Allocations;
  settings: NetworkSettings;
  clock: HybridClock;
  log: Logger;
}

const predefinedNames = ['bridge', 'host', 'none', 'default'];
const creation = 'creation';

/** Networks themselves: names, subnets, bridges. What containers have in them is `Sandboxes`' business. */
export class Networks {
  readonly #deps: NetworksDeps;
  readonly #locks = new KeyedLocks();

  constructor(deps: NetworksDeps) {
    this.#deps = deps;
  }

  /**
   * By full id, name or unique prefix of the id, in this order.
   *
   * @throws EngineError `notFound`, `invalidArgument` for a prefix of several
   */
  resolve(reference: string): NetworkRecord {
    const { store } = this.#deps;
    const exact = store.network(reference);
    if (exact !== undefined) return exact;
    const all = store.networks();
    const named = all.find((record) => record.name === reference);
    if (named !== undefined) return named;
    const prefixed = reference === '' ? [] : all.filter((record) => record.id.startsWith(reference));
    if (prefixed.length > 1)
      throw invalidArgument(`network ${reference} is ambiguous (${prefixed.length} matches found based on ID prefix)`);
    const [found] = prefixed;
    if (found === undefined) throw notFound(`network ${reference} not found`);
    return found;
  }

  /** The network named so, or undefined. */
  named(name: string): NetworkRecord | undefined {
    return this.#deps.store.networks().find((record) => record.name === name);
  }

  /**
   * @throws EngineError `invalidArgument` for names, subnets and options that cannot be, `alreadyExists` for a name in use,
   * `permissionDenied` for predefined names and for subnets that overlap another network's
   */
  async create(
    request: proto.CreateNetworkRequest,
    receipt: (record: NetworkRecord) => Receipt,
  ): Promise<{ record: NetworkRecord; revision: bigint }> {
    if (predefinedNames.includes(request.name)) {
      throw permissionDenied(`operation is not permitted on predefined ${request.name} network`);
    }
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(request.name)) {
      throw invalidArgument(
        request.name.trim() === ''
          ? 'invalid name: name is empty'
          : `invalid network name ${JSON.stringify(request.name)}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
      );
    }
    return await this.#locks.run(creation, async () => {
      const record = await this.#plan(request);
      const revision = await this.#establish(record, receipt(record));
      return { record, revision };
    });
  }

  /** @throws EngineError `permissionDenied` for predefined networks and while endpoints are active */
  async remove(reference: string, receipt: Receipt): Promise<bigint> {
    const record = this.resolve(reference);
    if (record.predefined) throw permissionDenied(`${record.name} is a pre-defined network and cannot be removed`);
    return await this.#locks.run(record.id, async () => {
      if (this.#deps.store.network(record.id) === undefined) throw notFound(`network ${reference} not found`);
      if (this.#deps.allocations.isHeld(record.id)) throw permissionDenied(this.#activeEndpoints(record));
      const user = this.#deps.store.networks().find((other) => other.configFrom === record.name);
      if (record.configOnly && user !== undefined) {
        throw permissionDenied(`configuration network ${JSON.stringify(record.name)} is in use`);
      }
      // Who makes a network of the same bridge or parent meanwhile must not lose it again.
      return await this.#locks.run(creation, () => this.#tearDown(record, receipt));
    });
  }

  /** Remove every user-defined network that nobody is in and that matches. */
  async prune(filter: {
    untilNs?: bigint;
    matchesLabels: (labels: Record<string, string>) => boolean;
  }): Promise<{ removed: string[]; revision: bigint }> {
    const { store, allocations, log } = this.#deps;
    const removed: string[] = [];
    let revision = store.revision;
    for (const record of store.networks()) {
      if (record.predefined || allocations.isHeld(record.id) || !filter.matchesLabels(record.labels)) continue;
      if (filter.untilNs !== undefined && BigInt(record.createdAtNs) > filter.untilNs) continue;
      try {
        revision = await this.remove(record.id, () => undefined);
        removed.push(record.name);
      } catch (error) {
        log.info({ network: record.name, reason: messageOf(error) }, 'network not pruned');
      }
    }
    return { removed, revision };
  }

  /** Make bridge, host and none where they are missing, and adapt the bridge to the settings. Before anything else. */
  async ensurePredefined(): Promise<void> {
    const { store, settings } = this.#deps;
    const put: NetworkRecord[] = [];
    for (const [name, driver] of [
      ['host', 'host'],
      ['none', 'null'],
    ] as const) {
      if (this.named(name) === undefined) put.push(this.#blank(name, driver));
    }
    const existing = this.named('bridge');
    if (settings.bridge === 'none') {
      if (existing !== undefined) await this.#dropDefaultBridge(existing);
    } else {
      const wanted = await this.#defaultBridge(existing);
      if (JSON.stringify(wanted) !== JSON.stringify(existing)) put.push(wanted);
    }
    if (put.length > 0) await store.commit({ putNetworks: put });
  }

  async #dropDefaultBridge(record: NetworkRecord): Promise<void> {
    const inUse = this.#deps.store.sandboxes().some((box) => box.endpoints.some((one) => one.networkId === record.id));
    if (!inUse) await this.#deps.store.commit({ removeNetworks: [record] });
  }

  async #defaultBridge(existing: NetworkRecord | undefined): Promise<NetworkRecord> {
    const { settings, store } = this.#deps;
    const inUse =
      existing !== undefined &&
      store.sandboxes().some((box) => box.endpoints.some((one) => one.networkId === existing.id));
    if (inUse) return existing;
    const base = existing ?? this.#blank('bridge', 'bridge');
    const pools = await this.#defaultBridgePools(existing);
    const gateway = pools.find(({ subnet }) => subnet.includes('.'))?.gateway ?? '';
    const bridge: BridgeRecord = {
      name: settings.bridge,
      mac: existing?.bridge?.mac ?? macForAddress(gateway),
      mtu: settings.mtu,
      areNeighboursAllowed: settings.areNeighboursAllowed,
      isMasquerading: settings.isMasquerading,
      hostBindingIpv4: '',
      interfacePrefix: 'eth',
    };
    return {
      ...base,
      enableIpv6: settings.isIpv6OnDefaultBridge,
      ipam: { driver: 'default', options: {}, pools },
      options: {
        'com.docker.network.bridge.default_bridge': 'true',
        'com.docker.network.bridge.enable_icc': String(bridge.areNeighboursAllowed),
        'com.docker.network.bridge.enable_ip_masquerade': String(bridge.isMasquerading),
        'com.docker.network.bridge.host_binding_ipv4':
          settings.defaultHostIp === '' ? '0.0.0.0' : settings.defaultHostIp,
        'com.docker.network.bridge.name': bridge.name,
        'com.docker.network.driver.mtu': String(bridge.mtu),
      },
      bridge,
    };
  }

  async #defaultBridgePools(existing: NetworkRecord | undefined): Promise<PoolRecord[]> {
    const { settings } = this.#deps;
    const pools: PoolRecord[] = [];
    const kept = (family: 4 | 6): PoolRecord | undefined =>
      existing?.ipam.pools.find(({ subnet }) => parseCidr(subnet)?.family === family);
    if (settings.bridgeAddress !== undefined) {
      const { bridgeAddress } = settings;
      const subnet = cidrText({ ...bridgeAddress, address: firstAddress(bridgeAddress) });
      pools.push(this.#completePool({ subnet, gateway: cidrText(bridgeAddress).split('/')[0] ?? '' }));
    } else {
      pools.push(kept(4) ?? this.#completePool({ subnet: await this.#freeSubnet(4, existing) }));
    }
    const [pool] = pools;
    if (pool !== undefined && settings.fixedCidr !== undefined) pool.ipRange = cidrText(settings.fixedCidr);
    else if (pool !== undefined) pool.ipRange = '';
    if (settings.isIpv6OnDefaultBridge) {
      const subnet = settings.fixedCidrV6 === undefined ? undefined : cidrText(settings.fixedCidrV6);
      pools.push(
        subnet === undefined
          ? (kept(6) ?? this.#completePool({ subnet: await this.#freeSubnet(6, existing) }))
          : this.#completePool({ subnet }),
      );
    }
    return pools;
  }

  #blank(name: string, driver: NetworkDriver): NetworkRecord {
    return {
      id: newId(),
      name,
      createdAtNs: String(this.#deps.clock.now()),
      driver,
      scope: 'local',
      internal: false,
      attachable: false,
      ingress: false,
      enableIpv4: true,
      enableIpv6: false,
      ipam: { driver: 'default', options: {}, pools: [] },
      options: {},
      labels: {},
      configOnly: false,
      configFrom: '',
      predefined: predefinedNames.includes(name),
      hasUserSubnet: false,
    };
  }

  /** Everything that can be refused without a trace. */
  async #plan(request: proto.CreateNetworkRequest): Promise<NetworkRecord> {
    if (this.named(request.name) !== undefined) {
      throw alreadyExists(`network with name ${request.name} already exists`);
    }
    const merged = this.#withConfigFrom(request);
    const driver = driverOf(merged.driver);
    const ipv4 = merged.enableIpv4 ?? true;
    const ipv6 = merged.enableIpv6 ?? false;
    if (!ipv4 && !ipv6 && driver === 'bridge') throw invalidArgument('IPv4 or IPv6 must be enabled');
    const ipamDriver = merged.ipam?.driver ?? '';
    if (ipamDriver !== '' && ipamDriver !== 'default' && ipamDriver !== 'null') {
      throw notFound(`plugin ${JSON.stringify(ipamDriver)} not found`);
    }
    const given = merged.ipam?.pools ?? [];
    validatePools(given, { ipv4, ipv6 });
    const record: NetworkRecord = {
      ...this.#blank(request.name, driver),
      internal: merged.internal,
      attachable: merged.attachable,
      ingress: merged.ingress,
      enableIpv4: ipv4,
      enableIpv6: ipv6,
      options: merged.options,
      labels: request.labels,
      configOnly: request.configOnly,
      configFrom: request.configFrom,
      ipam: {
        driver: ipamDriver === '' ? 'default' : ipamDriver,
        options: merged.ipam?.options ?? {},
        pools: given.map(poolRecord),
      },
    };
    record.hasUserSubnet = given.some(({ subnet }) => subnet !== '');
    if (record.configOnly) return record;
    if (driver === 'macvlan' || driver === 'ipvlan') {
      record.parent = parseParentOptions(driver, merged.options, record.id);
      checkParentIsFree(record.parent, this.#deps.store.networks());
      record.ipam.pools = await this.#planPools(record);
      return record;
    }
    const options = parseBridgeOptions(merged.options, this.#bridgeDefaults(record.id));
    this.#checkBridgeName(options);
    record.ipam.pools = await this.#planPools(record);
    const gateway = record.ipam.pools.find((pool) => parseCidr(pool.subnet)?.family === 4)?.gateway ?? '';
    record.bridge = { ...options, mac: macForAddress(gateway) };
    return record;
  }

  #withConfigFrom(request: proto.CreateNetworkRequest): proto.CreateNetworkRequest {
    if (request.configFrom === '') return request;
    const source = this.named(request.configFrom);
    if (source === undefined) throw notFound(`network ${request.configFrom} not found`);
    if (!source.configOnly)
      throw permissionDenied(`network ${JSON.stringify(request.configFrom)} is not a configuration network`);
    if ((request.ipam?.pools.length ?? 0) > 0 || Object.keys(request.options).length > 0) {
      throw permissionDenied(
        'user supplied configurations are not supported if the network depends on a configuration network',
      );
    }
    return {
      ...request,
      enableIpv4: source.enableIpv4,
      enableIpv6: source.enableIpv6,
      options: source.options,
      ipam: { ...source.ipam, pools: source.ipam.pools },
    };
  }

  #bridgeDefaults(id: string): BridgeOptions {
    const { settings } = this.#deps;
    return {
      name: bridgeNameOf(id),
      mtu: settings.mtu,
      areNeighboursAllowed: true,
      isMasquerading: true,
      hostBindingIpv4: '',
      interfacePrefix: 'eth',
    };
  }

  #checkBridgeName(options: BridgeOptions): void {
    const other = this.#deps.store.networks().find((record) => record.bridge?.name === options.name);
    if (other !== undefined) {
      throw permissionDenied(
        `cannot create network (${options.name}): conflicts with network ${other.id} (${other.name}): networks have same bridge name`,
      );
    }
  }

  async #planPools(record: NetworkRecord): Promise<PoolRecord[]> {
    const taken = this.#subnets();
    const pools: PoolRecord[] = [];
    for (const pool of record.ipam.pools.filter(({ subnet }) => subnet !== '')) {
      const cidr = parseCidr(pool.subnet);
      if (cidr !== undefined && taken.some((other) => overlaps(other, cidr))) {
        throw permissionDenied('invalid pool request: Pool overlaps with other one on this address space');
      }
      pools.push(this.#completePool(pool));
    }
    const has = (family: 4 | 6): boolean => pools.some(({ subnet }) => parseCidr(subnet)?.family === family);
    if (record.enableIpv4 && !has(4)) pools.unshift(this.#completePool({ subnet: await this.#freeSubnet(4) }));
    if (record.enableIpv6 && !has(6)) pools.push(this.#completePool({ subnet: await this.#freeSubnet(6) }));
    return pools;
  }

  /** Give a pool its gateway: the first free address of its range. */
  #completePool(pool: Partial<PoolRecord> & { subnet: string }): PoolRecord {
    const complete: PoolRecord = { ipRange: '', gateway: '', auxiliaryAddresses: {}, ...pool };
    if (complete.gateway === '') complete.gateway = new AddressPool(complete).allocate() ?? '';
    return complete;
  }

  #subnets(except?: NetworkRecord): Cidr[] {
    return this.#deps.store
      .networks()
      .filter((record) => record.id !== except?.id && !record.configOnly)
      .flatMap((record) => record.ipam.pools.flatMap(({ subnet }) => parseCidr(subnet) ?? []));
  }

  /** @throws EngineError `notFound` when the pools are used up */
  async #freeSubnet(family: 4 | 6, except?: NetworkRecord): Promise<string> {
    const { kernel, settings } = this.#deps;
    const own = new Set(this.#deps.store.networks().flatMap((record) => record.bridge?.name ?? []));
    const routes = (await kernel.call('hostRoutes', null)).filter(({ linkName }) => !own.has(linkName));
    const taken = [
      ...this.#subnets(except),
      ...routes.flatMap((route) => parseCidr(`${route.address}/${route.prefixLength}`) ?? []),
    ];
    const configured = settings.pools.filter(({ base }) => base.family === family);
    const pools = family === 6 && configured.length === 0 ? [defaultIpv6Pool(settings.engineId)] : configured;
    const subnet = chooseSubnet(pools, taken);
    if (subnet === undefined) throw notFound('all predefined address pools have been fully subnetted');
    return cidrText(subnet);
  }

  /**
   * Record and build at the same time: what a crash leaves of either without the other is put right at the next start.
   */
  async #establish(record: NetworkRecord, receipt: Receipt): Promise<bigint> {
    const { store, allocations } = this.#deps;
    const [built, written] = await Promise.allSettled([
      this.#build(record),
      store.commit({ putNetworks: [record], events: [networkCreated(record)], receipt }),
    ]);
    if (built.status === 'rejected') {
      await this.#demolish(record).catch(() => undefined);
      if (written.status === 'fulfilled')
        await store.commit({ removeNetworks: [record], events: [networkDestroyed(record)] });
      if (isEngineError(built.reason)) throw built.reason;
      throw kernelFailure(`cannot create network ${record.name}`, built.reason);
    }
    if (written.status === 'rejected') {
      await this.#demolish(record);
      throw written.reason;
    }
    allocations.addNetwork(record);
    return written.value;
  }

  /** What a network has in the kernel. */
  async #build(record: NetworkRecord): Promise<void> {
    const { kernel } = this.#deps;
    const bridge = bridgeSpec(record);
    if (bridge !== undefined) await kernel.call('ensureBridge', bridge);
    const parent = parentSpec(record);
    if (parent === undefined || record.parent === undefined) return;
    const outcome = await kernel.call('ensureParent', parent);
    if (outcome.kind !== 'ready') throw parentFailure(record.parent, outcome);
  }

  async #demolish(record: NetworkRecord): Promise<void> {
    const { kernel, store } = this.#deps;
    const bridge = bridgeSpec(record);
    if (bridge !== undefined) await kernel.call('removeBridge', bridge);
    const { parent } = record;
    const isShared = store.networks().some((other) => other.id !== record.id && other.parent?.name === parent?.name);
    if (parent !== undefined && !isShared) await kernel.call('removeParent', parent.name);
  }

  async #tearDown(record: NetworkRecord, receipt: Receipt): Promise<bigint> {
    const { store, allocations } = this.#deps;
    allocations.removeNetwork(record.id); // nobody gets in from here on
    try {
      const revision = await store.commit({ removeNetworks: [record], events: [networkDestroyed(record)], receipt });
      await this.#demolish(record);
      return revision;
    } catch (error) {
      if (store.network(record.id) !== undefined) allocations.addNetwork(record);
      throw error;
    }
  }

  #activeEndpoints(record: NetworkRecord): string {
    const endpoints = this.#deps.store
      .sandboxes()
      .flatMap((box) =>
        box.endpoints
          .filter((one) => one.networkId === record.id)
          .map((one) => `name:${JSON.stringify(box.containerName)} id:${JSON.stringify(one.id.slice(0, 12))}`),
      );
    return `error while removing network: network ${record.name} has active endpoints (${endpoints.join(', ')})`;
  }
}

function driverOf(name: string): NetworkDriver {
  switch (name) {
    case '':
    case 'default':
    case 'bridge':
      return 'bridge';
    case 'host':
      throw permissionDenied('only one instance of "host" network is allowed');
    case 'null':
      throw permissionDenied('only one instance of "null" network is allowed');
    case 'macvlan':
    case 'ipvlan':
      return name;
    case 'overlay':
      throw unimplemented(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
      );
    default:
      throw notFound(`plugin ${JSON.stringify(name)} not found`);
  }
}

function poolRecord({ subnet, ipRange, gateway, auxiliaryAddresses }: proto.IpamPool): PoolRecord {
  return { subnet, ipRange, gateway, auxiliaryAddresses };
}
