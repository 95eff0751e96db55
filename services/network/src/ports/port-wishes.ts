import { invalidArgument } from '@flotilla/errors';
import { familyOf } from '@flotilla/netlink';
import type { network } from '@flotilla/proto';
import type { Protocol } from '../store/records.js';

/** One port that a container wants published. */
export interface PortWish {
  protocol: Protocol;
  containerPort: number;
  /** Empty: the default addresses. */
  hostIp: string;
  /** 0: any free port. */
  hostPort: number;
  /** The last port of the range to choose from; `hostPort` itself for a single one. */
  hostPortEnd: number;
}

/** @throws EngineError `invalidArgument` for what cannot be published */
export function portWishes(
  bindings: readonly network.PortBinding[],
  exposed: { publishAll: boolean; exposedPorts: readonly string[] },
): PortWish[] {
  const wishes = bindings.map(parseBinding);
  if (!exposed.publishAll) return wishes;
  for (const text of exposed.exposedPorts) {
    for (const { protocol, containerPort } of exposedPorts(text)) {
      if (wishes.some((wish) => wish.protocol === protocol && wish.containerPort === containerPort)) continue;
      wishes.push({ protocol, containerPort, hostIp: '', hostPort: 0, hostPortEnd: 0 });
    }
  }
  return wishes;
}

function parseBinding(binding: network.PortBinding): PortWish {
  const { containerPort, hostIp, hostPort } = binding;
  const hostPortEnd = binding.hostPortEnd === 0 ? hostPort : binding.hostPortEnd;
  if (!isPort(containerPort))
    throw invalidArgument(`invalid container port ${containerPort}: must be between 1 and 65535`);
  if (hostPort > 65535 || hostPortEnd > 65535 || hostPortEnd < hostPort) {
    throw invalidArgument(`invalid host port range ${hostPort}-${hostPortEnd}`);
  }
  if (hostIp !== '' && familyOf(hostIp) === undefined) throw invalidArgument(`invalid host IP address: ${hostIp}`);
  return { protocol: parseProtocol(binding.protocol), containerPort, hostIp, hostPort, hostPortEnd };
}

/** `80/tcp`, `53/udp`, `8000-8010/tcp`; without a protocol tcp. */
function exposedPorts(text: string): { protocol: Protocol; containerPort: number }[] {
  const match = /^(\d+)(?:-(\d+))?(?:\/(\w+))?$/.exec(text);
  const first = Number(match?.[1]);
  const last = match?.[2] === undefined ? first : Number(match[2]);
  if (match === null || !isPort(first) || !isPort(last) || last < first)
    throw invalidArgument(`invalid exposed port ${JSON.stringify(text)}`);
  const protocol = parseProtocol(match[3] ?? 'tcp');
  return Array.from({ length: last - first + 1 }, (_, index) => ({ protocol, containerPort: first + index }));
}

function parseProtocol(protocol: string): Protocol {
  switch (protocol.toLowerCase()) {
    case '':
    case 'tcp':
      return 'tcp';
    case 'udp':
      return 'udp';
    case 'sctp':
      throw invalidArgument('publishing ports of protocol sctp is not supported');
    default:
      throw invalidArgument(`invalid protocol: ${protocol}`);
  }
}

function isPort(value: number): boolean {
  return Number.isInteger(value) && value >= 1 && value <= 65535;
}
