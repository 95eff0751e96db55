import type { ServiceName } from '@flotilla/config';

/** The services that each service calls. */
export const calls: Readonly<Record<ServiceName, readonly ServiceName[]>> = {
  'api-gateway': ['image', 'container', 'network', 'volume', 'registry-proxy'],
  container: ['image', 'volume', 'network'],
  image: ['registry-proxy'],
  network: [],
  volume: [],
  'registry-proxy': [],
};

/** Who starts when, in turn. */
export interface StartOrder {
  /** At once; uses no shared mounts. */
  readonly gateway: readonly ServiceName[];
  /** When the shared mounts are there. With it the API tells of containers. */
  readonly first: readonly ServiceName[];
  /** When those serve, which until then have the processors for themselves; callees before callers. */
  readonly rest: readonly ServiceName[];
}

/** Nobody needs anybody to be there: calls to a service that is down are repeated. */
export function startOrder(services: readonly ServiceName[]): StartOrder {
  const atTheFront: readonly ServiceName[] = ['api-gateway', 'container'];

  const rest: ServiceName[] = [];
  const visit = (service: ServiceName) => {
    if (rest.includes(service)) return;
    for (const callee of calls[service]) visit(callee);
    if (services.includes(service) && !atTheFront.includes(service)) rest.push(service);
  };
  for (const service of services) visit(service);
  return {
    gateway: services.filter((service) => service === 'api-gateway'),
    first: services.filter((service) => service === 'container'),
    rest,
  };
}

/** Who is stopped together, in turn: callers before callees, so that nobody's call fails for want of its callee. */
export function stopOrder(services: readonly ServiceName[]): ServiceName[][] {
  const left = new Set(services);
  const groups: ServiceName[][] = [];
  while (left.size > 0) {
    const group = [...left].filter(
      (service) => ![...left].some((other) => other !== service && calls[other].includes(service)),
    );
    for (const service of group) left.delete(service);
    groups.push(group);
  }
  return groups;
}
