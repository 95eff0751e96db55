import { invalidArgument } from '@flotilla/errors';
import { network, type container } from '@flotilla/proto';

/** How a container gets its network namespace. */
export type NetworkPlan =
  | { kind: 'host' }
  | { kind: 'none' }
  /** The namespace of another container, by its name or id as given. */
  | { kind: 'container'; target: string }
  /** A namespace of its own with these endpoints; the first is the one of `NetworkMode`. */
  | { kind: 'networks'; endpoints: network.EndpointRequest[] };

/** `default` and the empty mode mean bridge. */
export function normalizeNetworkMode(mode: string): string {
  return mode === '' || mode === 'default' ? 'bridge' : mode;
}

/**
 * The networks that a container asks for: `NetworkMode` and the endpoint settings given beside it.
 *
 * @throws EngineError `invalidArgument` in dockerd's words for combinations that cannot be.
 */
export function planNetworks(
  config: Pick<container.ContainerConfig, 'macAddress' | 'networkDisabled'>,
  mode: string,
  links: readonly string[],
  requested: readonly network.EndpointRequest[],
): NetworkPlan {
  if (config.networkDisabled || mode === 'none' || mode === 'host') {
    const addressed = requested.some(({ ipv4Address, ipv6Address }) => ipv4Address !== '' || ipv6Address !== '');
    if (addressed) throw invalidArgument('user specified IP address is supported on user defined networks only');
  }
  const others = requested
    .map((endpoint) => ({ ...endpoint, network: normalizeNetworkMode(endpoint.network) }))
    .filter((endpoint) => endpoint.network !== mode);
  if (config.networkDisabled || mode === 'none') {
    if (others.length > 0) {
      throw invalidArgument(
        'container cannot be connected to multiple networks with one of the networks in private (none) mode',
      );
    }
    return { kind: 'none' };
  }
  if (mode === 'host' || mode.startsWith('container:')) {
    if (others.length > 0) {
      throw invalidArgument(
        'container sharing network namespace with another container or host cannot be connected to any other network',
      );
    }
    return mode === 'host' ? { kind: 'host' } : { kind: 'container', target: mode.slice('container:'.length) };
  }
  const main =
    requested.find((endpoint) => normalizeNetworkMode(endpoint.network) === mode) ??
    network.EndpointRequest.fromPartial({});
  if (config.macAddress !== '' && main.macAddress !== '' && config.macAddress !== main.macAddress) {
    throw invalidArgument(
      'the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty',
    );
  }
  const endpoints = [
    {
      ...main,
      network: mode,
      macAddress: main.macAddress === '' ? config.macAddress : main.macAddress,
      links: main.links.length === 0 ? [...links] : main.links,
    },
    ...others,
  ];
  for (const endpoint of endpoints) validateEndpoint(endpoint);
  return { kind: 'networks', endpoints };
}

function validateEndpoint(endpoint: network.EndpointRequest): void {
  if (endpoint.network === 'host' || endpoint.network === 'none') {
    throw invalidArgument(
      endpoint.network === 'host'
        ? 'container cannot be disconnected from host network or connected to host network'
        : 'container cannot be connected to multiple networks with one of the networks in private (none) mode',
    );
  }
  if (endpoint.network !== 'bridge') return;
  if (endpoint.ipv4Address !== '' || endpoint.ipv6Address !== '') {
    throw invalidArgument('user specified IP address is supported on user defined networks only');
  }
  if (endpoint.aliases.length > 0) {
    throw invalidArgument('network-scoped alias is supported only for containers in user defined networks');
  }
}
