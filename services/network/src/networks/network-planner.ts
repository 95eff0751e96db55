import type { HybridClock } from '@flotilla/store';
import { alreadyExists, invalidArgument, notFound, permissionDenied } from '@flotilla/errors';
import { network as proto } from '@flotilla/proto';
import { parseCidr } from '../addresses/cidr.js';
import { macForAddress } from '../addresses/mac-address.js';
import { bridgeNameOf } from '../engine-names.js';
import type { NetworkSettings } from '../settings.js';
import type { NetworkStore } from '../store/network-store.js';
import type { NetworkDriver, NetworkRecord, PoolRecord } from '../store/records.js';
import { blankNetwork } from './blank-network.js';
import { validatePools } from './ipam-validation.js';
import { familyOptions, parseBridgeOptions, parseFamilyOption } from './network-options.js';
import type { BridgeOptions } from './network-options.js';
import { checkParentIsFree, parseParentOptions } from './parent-options.js';
import { completePool, familyOfPool } from './subnets.js';
import type { Subnets } from './subnets.js';

export interface NetworkPlannerDeps {
  store: NetworkStore;
  settings: NetworkSettings;
  subnets: Subnets;
  clock: HybridClock;
}

/** MTU of networks that name none; the engine's `mtu` is for the default bridge, as with dockerd. */
const defaultMtu = 1500;

/** Turns create requests into records: everything that can be refused without a trace is refused here. */
export class NetworkPlanner {
  readonly #deps: NetworkPlannerDeps;

  constructor(deps: NetworkPlannerDeps) {
    this.#deps = deps;
  }

  /** @throws EngineError as `Networks.create` says */
  async plan(request: proto.CreateNetworkRequest): Promise<NetworkRecord> {
    const { store, clock } = this.#deps;
    if (store.networks().some(({ name }) => name === request.name))
      throw alreadyExists(`network with name ${request.name} already exists`);
    checkOperatorFields(request);
    const wanted = this.#withDefaultOptions(this.#withConfigFrom(request));
    const driver = request.configOnly ? 'null' : driverOf(wanted.driver);
    const { ipv4, ipv6, options } = familiesOf(wanted);
    const ipam = wanted.ipam ?? proto.Ipam.fromPartial({});
    if (!['', 'default', 'null'].includes(ipam.driver))
      throw notFound(`plugin ${JSON.stringify(ipam.driver)} not found`);
    validatePools(ipam.pools, { ipv4, ipv6 });
    const record: NetworkRecord = {
      ...blankNetwork(request.name, driver, clock),
      internal: wanted.internal,
      attachable: wanted.attachable,
      enableIpv4: ipv4,
      enableIpv6: ipv6,
      options,
      labels: wanted.labels,
      configOnly: request.configOnly,
      configFrom: request.configFrom,
      ipam: {
        driver: ipam.driver === '' ? 'default' : ipam.driver,
        options: ipam.options,
        pools: ipam.pools.map(poolRecord),
      },
      hasUserSubnet: ipam.pools.some(({ subnet }) => subnet !== ''),
    };
    if (wanted.scope !== '') record.scope = wanted.scope;
    if (record.configOnly) return record;
    if (ipam.driver === 'null' && ipv4) throw invalidArgument('ipv4 pool is empty');
    if (ipam.driver === 'null' && ipv6) throw invalidArgument('ipv6 pool is empty');
    if (driver === 'macvlan' || driver === 'ipvlan') return await this.#onParent(record, driver);
    return await this.#onBridge(record);
  }

  async #onParent(record: NetworkRecord, driver: 'macvlan' | 'ipvlan'): Promise<NetworkRecord> {
    const parent = parseParentOptions(driver, record.options, record.id);
    checkParentIsFree(parent, this.#deps.store.networks());
    const pools = await this.#pools(record, () => true);
    return { ...record, parent, ipam: { ...record.ipam, pools } };
  }

  async #onBridge(record: NetworkRecord): Promise<NetworkRecord> {
    if (!record.enableIpv4 && !record.enableIpv6) throw invalidArgument('IPv4 or IPv6 must be enabled');
    for (const family of [4, 6] as const) {
      if (record.ipam.pools.filter((pool) => familyOfPool(pool) === family).length > 1)
        throw permissionDenied("bridge driver doesn't support multiple subnets");
    }
    const options = parseBridgeOptions(record.options, bridgeDefaults(record.id), record.internal);
    this.#checkBridgeName(record, options);
    const pools = await this.#pools(record, (family) =>
      family === 4
        ? options.gatewayModeIpv4 !== 'isolated' && !(options.hasNoIpv4OnBridge === true && record.internal)
        : options.gatewayModeIpv6 !== 'isolated',
    );
    const gateway = pools.find((pool) => familyOfPool(pool) === 4)?.gateway ?? '';
    return { ...record, bridge: { ...options, mac: macForAddress(gateway) }, ipam: { ...record.ipam, pools } };
  }

  #checkBridgeName(record: NetworkRecord, options: BridgeOptions): void {
    const other = this.#deps.store.networks().find(({ bridge }) => bridge?.name === options.name);
    if (other !== undefined) {
      throw permissionDenied(
        `cannot create network ${record.id} (${options.name}): conflicts with network ${other.id} (${options.name}): networks have same bridge name`,
      );
    }
  }

  async #pools(record: NetworkRecord, hasGateway: (family: 4 | 6) => boolean): Promise<PoolRecord[]> {
    const { subnets } = this.#deps;
    const pools: PoolRecord[] = [];
    for (const pool of record.ipam.pools) {
      const subnet = parseCidr(pool.subnet);
      if (subnet === undefined) continue; // an entry that asks for nothing
      subnets.requireFree(subnet);
      pools.push(completePool(pool, hasGateway(subnet.family)));
    }
    const chosen = async (family: 4 | 6): Promise<PoolRecord> =>
      completePool({ subnet: await subnets.choose(family) }, hasGateway(family));
    const has = (family: 4 | 6): boolean => pools.some((pool) => familyOfPool(pool) === family);
    if (record.enableIpv4 && !has(4)) pools.unshift(await chosen(4));
    if (record.enableIpv6 && !has(6)) pools.push(await chosen(6));
    return pools;
  }

  /** What a configuration network says; beside it a network says no more than what concerns its use. */
  #withConfigFrom(request: proto.CreateNetworkRequest): proto.CreateNetworkRequest {
    if (request.configFrom === '') return request;
    if (request.configOnly)
      throw permissionDenied('a configuration network cannot depend on another configuration network');
    const { ipam } = request;
    if (
      !['', 'default'].includes(ipam?.driver ?? '') ||
      (ipam?.pools.length ?? 0) > 0 ||
      Object.keys({ ...ipam?.options, ...request.labels }).length > 0 ||
      request.enableIpv4 === false ||
      request.enableIpv6 === true
    ) {
      throw permissionDenied(
        'user-specified configurations are not supported if the network depends on a configuration network',
      );
    }
    if (Object.keys(request.options).length > 0) {
      throw permissionDenied(
        'network driver options are not supported if the network depends on a configuration network',
      );
    }
    const source = this.#deps.store
      .networks()
      .find(({ name, configOnly }) => configOnly && name === request.configFrom);
    if (source === undefined)
      throw notFound(`configuration network ${JSON.stringify(request.configFrom)} does not exist`);
    const { enableIpv4, enableIpv6, options, labels } = source;
    return { ...request, enableIpv4, enableIpv6, options, labels, ipam: source.ipam };
  }

  /** The engine's options for networks of this driver, where the request does not say otherwise. */
  #withDefaultOptions(request: proto.CreateNetworkRequest): proto.CreateNetworkRequest {
    if (request.configFrom !== '') return request;
    const driver = ['', 'default'].includes(request.driver) ? 'bridge' : request.driver;
    const defaults = this.#deps.settings.defaultNetworkOptions[driver] ?? {};
    return { ...request, options: { ...defaults, ...request.options } };
  }
}

/** Fields that are about what a network is used for, and what needs a swarm. */
function checkOperatorFields({ configOnly, internal, attachable, ingress, scope }: proto.CreateNetworkRequest): void {
  if (configOnly && (internal || attachable || ingress || scope !== '')) {
    throw permissionDenied(
      'configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.',
    );
  }
  if (ingress) throw permissionDenied('Ingress network can only be global scope network');
  if (scope === 'swarm') throw permissionDenied('cannot create a swarm scoped network when swarm is not active');
  if (!['', 'local', 'global'].includes(scope)) throw invalidArgument(`invalid network scope ${JSON.stringify(scope)}`);
}

/** The request's own fields count more than the options that say the same; those are not shown then. */
function familiesOf({ enableIpv4, enableIpv6, options: given }: proto.CreateNetworkRequest): {
  ipv4: boolean;
  ipv6: boolean;
  options: Record<string, string>;
} {
  const isOverruled = (name: string): boolean =>
    (name === familyOptions.ipv4 && enableIpv4 !== undefined) ||
    (name === familyOptions.ipv6 && enableIpv6 !== undefined);
  const options = Object.fromEntries(Object.entries(given).filter(([name]) => !isOverruled(name)));
  return {
    ipv4: enableIpv4 ?? parseFamilyOption(familyOptions.ipv4, options) ?? true,
    ipv6: enableIpv6 ?? parseFamilyOption(familyOptions.ipv6, options) ?? false,
    options,
  };
}

function bridgeDefaults(id: string): BridgeOptions {
  return {
    name: bridgeNameOf(id),
    mtu: defaultMtu,
    areNeighboursAllowed: true,
    isMasquerading: true,
    hostBindingIpv4: '',
    interfacePrefix: 'eth',
  };
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
      throw permissionDenied(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
      );
    default:
      throw notFound(`plugin ${JSON.stringify(name)} not found`);
  }
}

function poolRecord({ subnet, ipRange, gateway, auxiliaryAddresses }: proto.IpamPool): PoolRecord {
  return { subnet, ipRange, gateway, auxiliaryAddresses };
}
