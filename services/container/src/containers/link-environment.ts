import type { container } from '@flotilla/proto';
import { expandExposedPort } from './port-plan.js';

interface Port {
  number: number;
  protocol: string;
}

/** Variables of every image that say nothing about a container. */
const unlinked = new Set(['HOME', 'PATH']);

/**
 * What a linked container is told about another one: its ports, its name and its variables, all beginning with the alias.
 *
 * @param name `/web/db`: the path of the link
 */
export function linkEnvironment(
  name: string,
  address: string,
  { env, exposedPorts }: Pick<container.ContainerConfig, 'env' | 'exposedPorts'>,
): string[] {
  const alias = (name.split('/').at(-1) ?? '').toUpperCase().replaceAll('-', '_');
  const ports = exposedPorts.flatMap(expandExposedPort).map(parsePort).sort(byNumber);
  const [first] = ports;
  return [
    ...(first === undefined ? [] : [`${alias}_PORT=${urlOf(address, first)}`]),
    ...portRanges(ports).flatMap((range) => rangeVariables(alias, address, range)),
    ...ports.flatMap((port) => portVariables(alias, address, port)),
    `${alias}_NAME=${name}`,
    ...env.flatMap((entry) => {
      const at = entry.indexOf('=');
      return at < 0 || unlinked.has(entry.slice(0, at)) ? [] : [`${alias}_ENV_${entry}`];
    }),
  ];
}

function portVariables(alias: string, address: string, port: Port): string[] {
  const key = keyOf(alias, port);
  return [
    `${key}=${urlOf(address, port)}`,
    `${key}_ADDR=${address}`,
    `${key}_PORT=${port.number}`,
    `${key}_PROTO=${port.protocol}`,
  ];
}

function rangeVariables(alias: string, address: string, [first, last]: readonly [Port, Port]): string[] {
  const key = keyOf(alias, first);
  return [
    `${key}_START=${urlOf(address, first)}`,
    `${key}_ADDR=${address}`,
    `${key}_PROTO=${first.protocol}`,
    `${key}_PORT_START=${first.number}`,
    `${keyOf(alias, { ...first, protocol: last.protocol })}_END=${urlOf(address, last)}`,
    `${keyOf(alias, { ...first, protocol: last.protocol })}_PORT_END=${last.number}`,
  ];
}

/** First and last of each run of neighbours; of one port alone there is none. */
function portRanges(ports: readonly Port[]): [Port, Port][] {
  const ranges: [Port, Port][] = [];
  let start = 0;
  for (let at = 1; at <= ports.length; at++) {
    const [first, last, next] = [ports[start], ports[at - 1], ports[at]];
    if (first === undefined || last === undefined) break;
    if (next !== undefined && next.number <= last.number + 1) continue;
    if (at - start > 1) ranges.push([first, last]);
    start = at;
  }
  return ranges;
}

const keyOf = (alias: string, { number, protocol }: Port): string =>
  `${alias}_PORT_${number}_${protocol.toUpperCase()}`;

const urlOf = (address: string, { number, protocol }: Port): string => `${protocol}://${address}:${number}`;

function parsePort(text: string): Port {
  const [number = '', protocol = 'tcp'] = text.split('/');
  return { number: Number(number), protocol };
}

function byNumber(left: Port, right: Port): number {
  if (left.number !== right.number) return left.number - right.number;
  return Number(right.protocol === 'tcp') - Number(left.protocol === 'tcp');
}
