import type { GatewaySpec } from '../kernel/kernel-operations.js';
import type { PortTarget } from '../ports/host-ports.js';
import type { EndpointRecord, NetworkRecord } from '../store/records.js';

export interface Candidate {
  endpoint: EndpointRecord;
  network: NetworkRecord;
}

/** The endpoint that leads outside: highest priority, then by network name, as dockerd does. */
function leading(
  candidates: readonly Candidate[],
  hasGateway: (endpoint: EndpointRecord) => boolean,
): EndpointRecord | undefined {
  return candidates
    .filter(({ endpoint, network }) => !network.internal && hasGateway(endpoint))
    .sort(
      (a, b) =>
        b.endpoint.gatewayPriority - a.endpoint.gatewayPriority ||
        (a.network.name < b.network.name ? -1 : a.network.name > b.network.name ? 1 : 0),
    )[0]?.endpoint;
}

const leadingIpv4 = (candidates: readonly Candidate[]): EndpointRecord | undefined =>
  leading(candidates, (endpoint) => endpoint.gateway !== '');
const leadingIpv6 = (candidates: readonly Candidate[]): EndpointRecord | undefined =>
  leading(candidates, (endpoint) => endpoint.ipv6Gateway !== '');

/** Default gateways of a sandbox; undefined when it has none. */
export function chooseGateway(candidates: readonly Candidate[]): GatewaySpec | undefined {
  const ipv4 = leadingIpv4(candidates)?.gateway;
  const ipv6 = leadingIpv6(candidates)?.ipv6Gateway;
  if (ipv4 === undefined && ipv6 === undefined) return undefined;
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) };
}

/** Where published ports lead. */
export function choosePortTarget(candidates: readonly Candidate[]): PortTarget {
  return {
    ipv4: leadingIpv4(candidates)?.ipv4Address,
    ipv6: leadingIpv6(candidates)?.ipv6Address,
  };
}

/** The endpoint on which failures of published ports are reported, and whose network sets their default address. */
export function publishingEndpoint(candidates: readonly Candidate[]): Candidate | undefined {
  const endpoint = leadingIpv4(candidates) ?? leadingIpv6(candidates);
  return candidates.find((candidate) => candidate.endpoint === endpoint);
}
