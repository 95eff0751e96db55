import { isIP } from 'node:net';
import { invalidArgument } from '@flotilla/errors';
import type { container, network } from '@flotilla/proto';

interface PortRange {
  protocol: string;
  first: number;
  last: number;
}

const protocols = ['tcp', 'udp', 'sctp'];

/**
 * What the network service is asked to publish: `PortBindings` with ranges spread one to one where both sides have the same length.
 *
 * @throws EngineError `invalidArgument`.
 */
export function planPorts(mappings: readonly container.PortMapping[]): network.PortBinding[] {
  const bindings: network.PortBinding[] = [];
  for (const mapping of mappings) {
    const inside = parsePortSpec(mapping.containerPort);
    const count = inside.last - inside.first + 1;
    for (const { hostIp, hostPort } of mapping.hostPorts) {
      if (hostIp !== '' && isIP(hostIp.replace(/^\[(.*)\]$/, '$1')) === 0)
        throw invalidArgument(`invalid host IP: "${hostIp}"`);
      const outside = hostPort === '' || hostPort === '0' ? undefined : parseHostPort(hostPort);
      const sameLength = outside !== undefined && outside.last - outside.first + 1 === count;
      if (count > 1 && outside !== undefined && !sameLength) {
        throw invalidArgument(
          `invalid ranges specified for container and host Ports: ${mapping.containerPort} and ${hostPort}`,
        );
      }
      for (let i = 0; i < count; i++) {
        bindings.push({
          protocol: inside.protocol,
          containerPort: inside.first + i,
          hostIp: hostIp.replace(/^\[(.*)\]$/, '$1'),
          hostPort: outside === undefined ? 0 : outside.first + (sameLength ? i : 0),
          hostPortEnd: outside === undefined || sameLength ? 0 : outside.last,
        });
      }
    }
    if (mapping.hostPorts.length === 0) {
      for (let i = 0; i < count; i++) {
        bindings.push({
          protocol: inside.protocol,
          containerPort: inside.first + i,
          hostIp: '',
          hostPort: 0,
          hostPortEnd: 0,
        });
      }
    }
  }
  return bindings;
}

/** Check `80/tcp` or `8000-8010/udp` and spread it into single ports. @throws EngineError `invalidArgument`. */
export function expandExposedPort(spec: string): string[] {
  const { protocol, first, last } = parsePortSpec(spec);
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol}`);
}

function parsePortSpec(spec: string): PortRange {
  const slash = spec.indexOf('/');
  const ports = slash === -1 ? spec : spec.slice(0, slash);
  const protocol = slash === -1 ? 'tcp' : spec.slice(slash + 1).toLowerCase();
  if (!protocols.includes(protocol)) throw invalidArgument(`invalid proto: ${protocol}`);
  const range = parseRange(ports);
  if (range === undefined || range.first === 0) throw invalidArgument(`invalid port specification: "${ports}"`);
  return { protocol, ...range };
}

function parseHostPort(text: string): { first: number; last: number } {
  const range = parseRange(text);
  if (range === undefined) throw invalidArgument(`invalid port specification: "${text}"`);
  return range;
}

function parseRange(text: string): { first: number; last: number } | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (match === null) return undefined;
  const first = Number(match[1]);
  const last = match[2] === undefined ? first : Number(match[2]);
  return first <= last && last <= 65535 ? { first, last } : undefined;
}
