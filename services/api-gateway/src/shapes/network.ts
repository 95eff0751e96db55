import { apiVersion } from '@flotilla/docker-api';
import type { IpamConfig, Network, NetworkContainer } from '@flotilla/docker-api';
import { timestampToRfc3339Nano } from '@flotilla/proto';
import type { network } from '@flotilla/proto';
import { VersionedShape } from '../model/rendered.js';

const poolShape = (pool: network.IpamPool): IpamConfig => ({
  Subnet: pool.subnet,
  ...(pool.ipRange === '' ? {} : { IPRange: pool.ipRange }),
  ...(pool.gateway === '' ? {} : { Gateway: pool.gateway }),
  ...(Object.keys(pool.auxiliaryAddresses).length === 0 ? {} : { AuxiliaryAddresses: pool.auxiliaryAddresses }),
});

const withPrefix = (address: string, length: number): string => (address === '' ? '' : `${address}/${length}`);

const containerShape = (endpoint: network.Endpoint): NetworkContainer => ({
  Name: endpoint.containerName,
  EndpointID: endpoint.id,
  MacAddress: endpoint.macAddress,
  IPv4Address: withPrefix(endpoint.ipv4Address, endpoint.ipv4PrefixLength),
  IPv6Address: withPrefix(endpoint.ipv6Address, endpoint.ipv6PrefixLength),
});

const STEPS = [
  {
    below: apiVersion(1, 48),
    convert: (shape: Network): void => {
      delete (shape as Partial<Network>).EnableIPv4;
    },
  },
];

const shapeOf = (object: network.Network, endpoints: readonly network.Endpoint[]): Network => ({
  Name: object.name,
  Id: object.id,
  Created: timestampToRfc3339Nano(object.createdAt),
  Scope: object.scope === '' ? 'local' : object.scope,
  Driver: object.driver,
  EnableIPv4: object.enableIpv4,
  EnableIPv6: object.enableIpv6,
  IPAM: {
    Driver: object.ipam === undefined || object.ipam.driver === '' ? 'default' : object.ipam.driver,
    Options: object.ipam?.options ?? {},
    Config: (object.ipam?.pools ?? []).map(poolShape),
  },
  Internal: object.internal,
  Attachable: object.attachable,
  Ingress: object.ingress,
  ConfigFrom: { Network: object.configFrom },
  ConfigOnly: object.configOnly,
  Containers: Object.fromEntries(endpoints.map((endpoint) => [endpoint.containerId, containerShape(endpoint)])),
  Options: object.options,
  Labels: object.labels,
});

/** `GET /networks/{id}` with the older forms of it. */
export const networkInspect = new VersionedShape<network.Network, Network>(
  (object) => shapeOf(object, object.endpoints),
  STEPS,
);

/** An entry of `GET /networks`: without containers. */
export const networkSummary = new VersionedShape<network.Network, Network>((object) => shapeOf(object, []), STEPS);
