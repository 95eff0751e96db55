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

/**
 * Who is started when: the gateway at once, so that /_ping answers while the rest comes up; then callees before callers.
 * Nobody waits for anybody's health: calls to a service that is not there yet are repeated.
 */
export function startOrder(services: readonly ServiceName[]): ServiceName[] {
  const order: ServiceName[] = [];
  const visit = (service: ServiceName) => {
    if (order.includes(service)) return;
    if (service !== 'api-gateway') for (const callee of calls[service]) visit(callee);
    if (services.includes(service)) order.push(service);
  };
  visit('api-gateway');
  for (const service of services) visit(service);
  return order;
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
