import { invalidArgument } from '@flotilla/errors';
import { addressNumber, familyOf, macBytes } from '@flotilla/netlink';
import type { network as proto } from '@flotilla/proto';
import { containsAddress, parseCidr } from '../addresses/cidr.js';
import { macForAddress } from '../addresses/mac-address.js';
import { hostInterfaceName, newId } from '../engine-names.js';
import type { Allocations } from '../networks/allocations.js';
import { gatewayFor } from '../networks/default-gateway.js';
import type { EndpointRecord, NetworkRecord } from '../store/records.js';
import { interfaceSysctls, isIpv6SwitchedOff, wantedInterfaceName } from './endpoint-options.js';
import { isRoutedByParent } from './gateway-choice.js';

/** Who the endpoint is for. */
export interface EndpointOwner {
  containerId: string;
  containerName: string;
  hostname: string;
  hasNoIpv6?: true;
}

/** Whether an address can be given beside those of the network: none of a subnet that the network hands out, and not the unspecified one. */
function isUsableExtra(address: string, network: NetworkRecord): boolean {
  if (familyOf(address) === undefined || addressNumber(address) === 0n) return false;
  return !network.ipam.pools.some(({ subnet }) => {
    const cidr = parseCidr(subnet);
    return cidr !== undefined && containsAddress(cidr, address);
  });
}

/**
 * Check what a container asks of a network, holding nothing.
 *
 * @throws EngineError `invalidArgument` in dockerd's words
 */
export function checkEndpointRequest(request: proto.EndpointRequest, network: NetworkRecord): void {
  wantedInterfaceName(request.driverOptions);
  interfaceSysctls(request.driverOptions);
  if (request.macAddress !== '') parseMac(request.macAddress);
  if (request.macAddress !== '' && network.parent?.kind === 'ipvlan')
    throw invalidArgument('ipvlan interfaces do not support custom mac address assignment');
  for (const address of request.linkLocalIps)
    if (!isUsableExtra(address, network))
      throw invalidArgument(`invalid endpoint settings:\ninvalid link-local IP address ${address}`);
  for (const [address, family] of [
    [request.ipv4Address, 4],
    [request.ipv6Address, 6],
  ] as const) {
    if (address === '') continue;
    if (familyOf(address) !== family) throw invalidArgument(`invalid IPv${family} address: ${address}`);
    if (network.predefined) {
      throw invalidArgument(
        'invalid endpoint settings:\nuser specified IP address is supported on user defined networks only',
      );
    }
    if (!network.hasUserSubnet) {
      throw invalidArgument(
        'invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets',
      );
    }
    const isContained = network.ipam.pools.some(({ subnet }) => {
      const cidr = parseCidr(subnet);
      return cidr !== undefined && containsAddress(cidr, address);
    });
    if (!isContained)
      throw invalidArgument(`invalid endpoint settings:\nno configured subnet contains IP address ${address}`);
  }
}

/**
 * Allocate an endpoint: name of the interface, addresses, MAC.
 *
 * @param interfaces names that the sandbox has already, and names that its other endpoints ask for
 * @throws EngineError when an address is in use or none is left; nothing is held then
 */
export function planEndpoint(
  request: proto.EndpointRequest,
  network: NetworkRecord,
  owner: EndpointOwner,
  interfaces: { used: readonly string[]; reserved: readonly string[] },
  allocations: Allocations,
): EndpointRecord {
  checkEndpointRequest(request, network);
  const wantedName = wantedInterfaceName(request.driverOptions);
  if (wantedName !== undefined && interfaces.used.includes(wantedName))
    throw invalidArgument(`invalid endpoint settings:\ninterface name ${JSON.stringify(wantedName)} is in use`);
  const id = newId();
  const endpoint: EndpointRecord = {
    id,
    networkId: network.id,
    macAddress: '',
    ipv4Address: '',
    ipv4PrefixLength: 0,
    gateway: '',
    ipv6Address: '',
    ipv6PrefixLength: 0,
    ipv6Gateway: '',
    aliases: request.aliases,
    dnsNames: dnsNames(owner, request.aliases, network),
    links: request.links,
    driverOptions: request.driverOptions,
    gatewayPriority: request.gatewayPriority,
    interfaceName: '',
    hostInterfaceName: '',
  };
  allocations.hold(network, id);
  if (network.bridge === undefined && network.parent === undefined) return endpoint;
  if (request.linkLocalIps.length > 0) endpoint.linkLocalIps = request.linkLocalIps;
  try {
    takeAddresses(endpoint, request, network, owner, allocations);
  } catch (error) {
    allocations.release(endpoint);
    throw error;
  }
  endpoint.interfaceName = interfaceName(wantedName, network.bridge?.interfacePrefix ?? 'eth', interfaces);
  if (network.parent?.kind === 'ipvlan') return endpoint; // it has the MAC address of its parent
  endpoint.macAddress = request.macAddress === '' ? macForAddress(endpoint.ipv4Address) : parseMac(request.macAddress);
  if (network.bridge !== undefined) endpoint.hostInterfaceName = hostInterfaceName(id);
  return endpoint;
}

/** Names under which others of a user-defined network find a container. */
export function dnsNames(owner: EndpointOwner, aliases: readonly string[], network: NetworkRecord): string[] {
  if (network.predefined) return [];
  const names = [owner.containerName, ...aliases, owner.containerId.slice(0, 12), owner.hostname];
  return [...new Set(names)].filter((name) => name !== '');
}

function takeAddresses(
  endpoint: EndpointRecord,
  request: proto.EndpointRequest,
  network: NetworkRecord,
  owner: EndpointOwner,
  allocations: Allocations,
): void {
  const addresses = allocations.addressesOf(network);
  const isAlone = network.internal || network.parent?.isMadeOfNothing === true || isRoutedByParent(network);
  const gatewayOf = (address: string): string => (isAlone ? '' : gatewayFor(address, network));
  if (network.enableIpv4) {
    const { address, prefixLength } = addresses.take(4, request.ipv4Address);
    endpoint.ipv4Address = address;
    endpoint.ipv4PrefixLength = prefixLength;
    endpoint.gateway = gatewayOf(address);
  }
  if (network.enableIpv6 && owner.hasNoIpv6 !== true && !isIpv6SwitchedOff(request.driverOptions)) {
    const { address, prefixLength } = addresses.take(6, request.ipv6Address);
    endpoint.ipv6Address = address;
    endpoint.ipv6PrefixLength = prefixLength;
    endpoint.ipv6Gateway = gatewayOf(address);
  }
}

function interfaceName(
  wanted: string | undefined,
  prefix: string,
  { used, reserved }: { used: readonly string[]; reserved: readonly string[] },
): string {
  if (wanted !== undefined) return wanted;
  for (let index = 0; ; index++) {
    const name = `${prefix}${index}`;
    if (!used.includes(name) && !reserved.includes(name)) return name;
  }
}

function parseMac(mac: string): string {
  const [first = 0] = macOrThrow(mac);
  if ((first & 1) !== 0) throw invalidArgument(`invalid MAC address: ${mac}`);
  return mac.replaceAll('-', ':').toLowerCase();
}

function macOrThrow(mac: string): Buffer {
  try {
    return macBytes(mac.replaceAll('-', ':'));
  } catch (error) {
    throw invalidArgument(`invalid MAC address: ${mac}`, { cause: error });
  }
}
