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

/** Endpoints that published ports lead to. Behind macvlan and ipvlan a container is its own host: nothing is published. */
export interface Publishers {
  ipv4?: Candidate;
  ipv6?: Candidate;
}

export function choosePublishers(candidates: readonly Candidate[]): Publishers {
  const [ipv4, ipv6] = ([4, 6] as const).map((family) => {
    const candidate = leading(candidates, family);
    return candidate?.network.bridge === undefined ? undefined : candidate;
  });
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) };
}

/** Where published ports lead. */
export function choosePortTarget(candidates: readonly Candidate[]): PortTarget {
  const { ipv4, ipv6 } = choosePublishers(candidates);
  return { ipv4: ipv4?.endpoint.ipv4Address, ipv6: ipv6?.endpoint.ipv6Address };
}

/** The endpoint on which failures of published ports are reported, and whose network sets their default address. */
export function publishingEndpoint(candidates: readonly Candidate[]): Candidate | undefined {
  const { ipv4, ipv6 } = choosePublishers(candidates);
  return ipv4 ?? ipv6;
}
