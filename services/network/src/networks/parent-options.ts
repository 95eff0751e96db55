import { invalidArgument, notFound, unimplemented } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import type { IpvlanFlag, IpvlanMode, MacvlanMode } from '@flotilla/netlink';
import type { ParentOutcome, ParentSpec } from '../kernel/kernel-operations.js';
import type { NetworkRecord, ParentRecord } from '../store/records.js';
import { isInterfaceName } from './network-options.js';

type Choices<T> = readonly [T, ...T[]];

// The first of each is the default.
const macvlanModes: Choices<MacvlanMode> = ['bridge', 'private', 'vepa', 'passthru'];
const ipvlanModes: Choices<IpvlanMode> = ['l2', 'l3', 'l3s'];
const ipvlanFlags: Choices<IpvlanFlag> = ['bridge', 'private', 'vepa'];
const maxVlanId = 4094;

/** dockerd's prefixes for parents that it makes of nothing. */
const dummyPrefixes = { macvlan: 'dm-', ipvlan: 'di-' } as const;

/**
 * What a network of driver macvlan or ipvlan is put on, and how.
 *
 * @throws EngineError `invalidArgument` in dockerd's words
 */
export function parseParentOptions(
  driver: 'macvlan' | 'ipvlan',
  options: Readonly<Record<string, string>>,
  networkId: string,
): ParentRecord {
  const given = options['parent'] ?? '';
  if (given === 'lo') throw invalidArgument(`loopback interface is not a valid ${driver} parent link`);
  if (given !== '' && !isInterfaceName(given)) throw invalidArgument(`invalid parent interface name ${given}`);
  const name = given === '' ? `${dummyPrefixes[driver]}${networkId.slice(0, 12)}` : given;
  const common = { name, isMadeOfNothing: given === '' };
  return driver === 'macvlan'
    ? { kind: 'macvlan', ...common, mode: chosen(options, 'macvlan', 'mode', macvlanModes) }
    : {
        kind: 'ipvlan',
        ...common,
        mode: chosen(options, 'ipvlan', 'mode', ipvlanModes),
        flag: chosen(options, 'ipvlan', 'flag', ipvlanFlags),
      };
}

/** @throws EngineError `invalidArgument` when another network's use of the parent excludes this one's */
export function checkParentIsFree(parent: ParentRecord, others: readonly NetworkRecord[]): void {
  for (const { id, parent: other } of others) {
    if (other?.name !== parent.name || other.kind !== parent.kind) continue;
    if (parent.kind === 'ipvlan') {
      throw invalidArgument(
        `network ${dummyPrefixes.ipvlan}${id.slice(0, 12)} is already using parent interface ${parent.name}`,
      );
    }
    if (parent.mode === 'passthru') {
      throw invalidArgument(
        `cannot use mode passthru, macvlan network ${id} is already using parent interface ${parent.name}`,
      );
    }
    if (other.mode === 'passthru') {
      throw invalidArgument(`macvlan network ${id} is already using parent interface ${parent.name} in mode passthru`);
    }
  }
}

/** What the kernel needs to know of a parent; undefined for networks without one. */
export function parentSpec({ parent }: NetworkRecord): ParentSpec | undefined {
  if (parent === undefined) return undefined;
  const lower = parent.isMadeOfNothing ? 'none' : vlanOf(parent.name);
  return { kind: parent.kind, name: parent.name, ...(lower === undefined ? {} : { lower }) };
}

/** `eth0.10`: VLAN 10 of eth0. A name that could be one, but is not, counts only when no link has it: see `parentFailure`. */
function vlanOf(name: string): { name: string; vlanId: number } | undefined {
  const [lower = '', digits = '', ...rest] = name.split('.');
  if (rest.length > 0 || lower === '' || !/^\d{1,5}$/.test(digits)) return undefined;
  const vlanId = Number(digits);
  return vlanId >= 1 && vlanId <= maxVlanId ? { name: lower, vlanId } : undefined;
}

/** Why a parent is not ready, in dockerd's words. */
export function parentFailure(parent: ParentRecord, outcome: Exclude<ParentOutcome, { kind: 'ready' }>): EngineError {
  if (outcome.kind === 'unsupported') {
    const purpose =
      outcome.link === parent.kind ? '' : `, which ${parent.kind} needs ${purposeOf(parent, outcome.link)}`;
    return unimplemented(`this kernel has no links of type ${outcome.link}${purpose}`);
  }
  const { name } = parent;
  if (outcome.name !== name) return notFound(`-o parent interface was not found on the host: ${outcome.name}`);
  const [, digits, ...rest] = name.split('.');
  if (digits === undefined) {
    return invalidArgument(`invalid subinterface vlan name ${name}, example formatting is eth0.10`);
  }
  if (rest.length > 0) {
    return invalidArgument(
      `required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received ${name}`,
    );
  }
  return /^\d+$/.test(digits)
    ? invalidArgument(`vlan id must be between 1-${maxVlanId}, received: ${digits}`)
    : invalidArgument(`unable to parse a valid vlan id from: ${digits} (ex. eth0.10 for vlan 10)`);
}

const purposeOf = (parent: ParentRecord, link: string): string =>
  link === 'dummy' ? 'when no parent is given' : `for the parent ${parent.name}`;

function chosen<T extends string>(
  options: Readonly<Record<string, string>>,
  driver: 'macvlan' | 'ipvlan',
  what: 'mode' | 'flag',
  values: Choices<T>,
): T {
  const [fallback] = values;
  const given = options[`${driver}_${what}`] ?? '';
  const found = given === '' ? fallback : values.find((value) => value === given);
  if (found === undefined) {
    const default_ = what === 'mode' ? `'${fallback}' mode` : `'${fallback}'`;
    throw invalidArgument(
      `requested ${driver} ${what} '${given}' is not valid, ${default_} is the ${driver} driver default`,
    );
  }
  return found;
}
