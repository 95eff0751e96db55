import type { HybridClock } from '@flotilla/store';
import { invalidArgument } from '@flotilla/errors';
import { cidrText, containsAddress, containsCidr, networkOf, parseCidr } from '../addresses/cidr.js';
import type { Cidr } from '../addresses/cidr.js';
import { macForAddress } from '../addresses/mac-address.js';
import type { KernelCalls } from '../kernel/kernel.js';
import type { NetworkSettings } from '../settings.js';
import type { BridgeRecord, NetworkRecord, PoolRecord } from '../store/records.js';
import { blankNetwork } from './blank-network.js';
import { defaultGatewayKeys } from './default-gateway.js';
import { completePool, familyOfPool } from './subnets.js';
import type { Subnets } from './subnets.js';

interface DefaultBridgeDeps {
  settings: NetworkSettings;
  subnets: Subnets;
  kernel: KernelCalls;
  clock: HybridClock;
}

/**
 * The record of the network `bridge` as the settings want it. What they leave open stays as it was; a bridge that somebody
 * else has made keeps its addresses and decides the subnets.
 *
 * @throws EngineError `invalidArgument` naming the key of daemon.json
 */
export async function planDefaultBridge(
  existing: NetworkRecord | undefined,
  { settings, subnets, kernel, clock }: DefaultBridgeDeps,
): Promise<NetworkRecord> {
  const found = await kernel.call('findLink', settings.bridge);
  const addresses = found === undefined || found.isOurs ? [] : found.addresses;
  const present = addresses.flatMap((one) => parseCidr(`${one.address}/${one.prefixLength}`) ?? []);
  const pool = async (family: 4 | 6): Promise<PoolRecord> => {
    const given = givenPool(family, settings, present);
    if (given !== undefined) return given;
    const kept = existing?.ipam.pools.find((one) => familyOfPool(one) === family);
    const auxiliaryAddresses = defaultGateway(family, settings);
    if (kept !== undefined) return { ...kept, ipRange: '', auxiliaryAddresses };
    return completePool({ subnet: await subnets.choose(family, existing), auxiliaryAddresses });
  };
  const pools = [await pool(4), ...(settings.isIpv6OnDefaultBridge ? [await pool(6)] : [])];
  for (const one of pools) checkPool(one);
  const bridge: BridgeRecord = {
    name: settings.bridge,
    mac: existing?.bridge?.mac ?? macForAddress(pools[0]?.gateway ?? ''),
    mtu: settings.mtu,
    areNeighboursAllowed: settings.areNeighboursAllowed,
    isMasquerading: settings.isMasquerading,
    hostBindingIpv4: '',
    interfacePrefix: 'eth',
  };
  return {
    ...(existing ?? blankNetwork('bridge', 'bridge', clock)),
    enableIpv6: settings.isIpv6OnDefaultBridge,
    ipam: { driver: 'default', options: {}, pools },
    options: {
      'com.docker.network.bridge.default_bridge': 'true',
      'com.docker.network.bridge.enable_icc': String(bridge.areNeighboursAllowed),
      'com.docker.network.bridge.enable_ip_masquerade': String(bridge.isMasquerading),
      'com.docker.network.bridge.host_binding_ipv4': settings.defaultHostIp === '' ? '0.0.0.0' : settings.defaultHostIp,
      'com.docker.network.bridge.name': bridge.name,
      'com.docker.network.driver.mtu': String(bridge.mtu),
    },
    bridge,
  };
}

/** The pool that settings or somebody else's bridge decide; undefined when they do not. */
function givenPool(family: 4 | 6, settings: NetworkSettings, present: readonly Cidr[]): PoolRecord | undefined {
  const [address, range] =
    family === 4 ? [settings.bridgeAddress, settings.fixedCidr] : [settings.bridgeAddressV6, settings.fixedCidrV6];
  const candidates = present.filter((one) => one.family === family && !isLinkLocal(one));
  const inRange = candidates.find(
    (one) => range !== undefined && containsAddress(range, cidrText(one).split('/')[0] ?? ''),
  );
  const own = address ?? inRange ?? (family === 4 || range === undefined ? candidates[0] : undefined);
  const auxiliaryAddresses = defaultGateway(family, settings);
  if (own !== undefined) {
    const gateway = cidrText(own).split('/')[0] ?? '';
    const ipRange = range === undefined ? '' : cidrText(networkOf(range));
    return completePool({ subnet: cidrText(networkOf(own)), gateway, ipRange, auxiliaryAddresses });
  }
  return range === undefined ? undefined : completePool({ subnet: cidrText(networkOf(range)), auxiliaryAddresses });
}

const isLinkLocal = (one: Cidr): boolean => one.family === 6 && one.address >> 118n === 0x3fan;

function defaultGateway(family: 4 | 6, settings: NetworkSettings): Record<string, string> {
  const address = family === 4 ? settings.defaultGateway : settings.defaultGatewayV6;
  return address === undefined ? {} : { [defaultGatewayKeys[family]]: address };
}

function checkPool({ subnet, ipRange, auxiliaryAddresses }: PoolRecord): void {
  const block = parseCidr(subnet);
  const range = ipRange === '' ? undefined : parseCidr(ipRange);
  if (block === undefined) return;
  const suffix = block.family === 4 ? '' : '-v6';
  if (range !== undefined && !containsCidr(block, range))
    throw invalidArgument(`fixed-cidr${suffix}: ${ipRange} is not part of the bridge's subnet ${subnet}`);
  const gateway = auxiliaryAddresses[defaultGatewayKeys[block.family]];
  if (gateway !== undefined && !containsAddress(block, gateway))
    throw invalidArgument(`default-gateway${suffix}: ${gateway} is not part of the bridge's subnet ${subnet}`);
}
