import type { DefaultRoute, GatewaySpec } from '../kernel/kernel-operations.js';
import type { PortTarget } from '../ports/host-ports.js';
import type { EndpointRecord, NetworkRecord } from '../store/records.js';

export interface Candidate {
  endpoint: EndpointRecord;
  network: NetworkRecord;
}

/** The endpoint that leads outside: highest priority, then by network name, as dockerd does. */
function leading(candidates: readonly Candidate[], family: 4 | 6): Candidate | undefined {
  return candidates
    .filter((candidate) => defaultRoute(candidate, family) !== undefined)
    .sort(
      (a, b) =>
        b.endpoint.gatewayPriority - a.endpoint.gatewayPriority ||
        (a.network.name < b.network.name ? -1 : a.network.name > b.network.name ? 1 : 0),
    )[0];
}

/** The way outside that an endpoint offers; undefined when it leads nowhere. */
function defaultRoute({ endpoint, network }: Candidate, family: 4 | 6): DefaultRoute | undefined {
  const [address, via] =
    family === 4 ? [endpoint.ipv4Address, endpoint.gateway] : [endpoint.ipv6Address, endpoint.ipv6Gateway];
  const { interfaceName } = endpoint;
  if (network.internal || address === '') return undefined;
  if (via !== '') return { via, interfaceName };
  return isRoutedByParent(network) ? { interfaceName } : undefined;
}

/** In the modes l3 and l3s the parent's own routes lead on: there is no router on the link to name. */
export function isRoutedByParent({ parent }: NetworkRecord): boolean {
  return parent?.kind === 'ipvlan' && parent.mode !== 'l2' && !parent.isMadeOfNothing;
}

/** Default routes of a sandbox; undefined when it has none. */
export function chooseGateway(candidates: readonly Candidate[]): GatewaySpec | undefined {
  const route = (family: 4 | 6): DefaultRoute | undefined => {
    const candidate = leading(candidates, family);
    return candidate === undefined ? undefined : defaultRoute(candidate, family);
  };
  const [ipv4, ipv6] = [route(4), route(6)];
  if (ipv4 === undefined && ipv6 === undefined) return undefined;
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) };
}

/** Where published ports lead. Behind macvlan and ipvlan a container is its own host: nothing is published there. */
export function choosePortTarget(candidates: readonly Candidate[]): PortTarget {
  const published = (family: 4 | 6): EndpointRecord | undefined => {
    const candidate = leading(candidates, family);
    return candidate?.network.bridge === undefined ? undefined : candidate.endpoint;
  };
  return { ipv4: published(4)?.ipv4Address, ipv6: published(6)?.ipv6Address };
}

/** The endpoint on which failures of published ports are reported, and whose network sets their default address. */
export function publishingEndpoint(candidates: readonly Candidate[]): Candidate | undefined {
  return ([4, 6] as const)
    .flatMap((family) => leading(candidates, family) ?? [])
    .find(({ network }) => network.bridge !== undefined);
}
