import { isNetlinkError, upperLinkMessages } from '@flotilla/netlink';
import type { Rtnetlink, UpperLinkKind } from '@flotilla/netlink';
import type { InterfaceSpec, ParentOutcome, ParentSpec } from './kernel-operations.js';

/** Refusals of a kernel that does not have a kind of link. */
const unknownKind = 'ENOTSUP';

/**
 * Make sure that links of a kind can be put on a parent, making the parent where it is ours to make: then it bears our
 * group, by which it is removed again.
 */
export function ensureParent(rt: Rtnetlink, { kind, name, lower }: ParentSpec, group: number): ParentOutcome {
  if (!hasKind(rt, kind)) return { kind: 'unsupported', link: kind };
  if (rt.findLink(name) !== undefined) return { kind: 'ready' };
  if (lower === undefined) return { kind: 'absent', name };
  if (lower === 'none') return make(rt, 'dummy', upperLinkMessages.createDummy({ name, group }), name);
  if (!hasKind(rt, 'vlan')) return { kind: 'unsupported', link: 'vlan' };
  const link = rt.findLink(lower.name);
  if (link === undefined) return { kind: 'absent', name: lower.name };
  return make(rt, 'vlan', upperLinkMessages.createVlan({ name, lower: link.index, id: lower.vlanId, group }), name);
}

/** Make the interface of an endpoint on its parent; it is in the sandbox from the first moment on. */
export function createUpperInterface(
  rt: Rtnetlink,
  namespaceFd: number,
  one: Extract<InterfaceSpec, { kind: 'macvlan' | 'ipvlan' }>,
): void {
  // Only one kind can sit on a parent at a time, and nothing beside a macvlan in mode passthru: the kernel says so.
  const what = `failed to create the ${one.kind} port on ${one.parent}`;
  const place = { name: one.name, lower: rt.link(one.parent).index, namespaceFd };
  const message =
    one.kind === 'macvlan'
      ? upperLinkMessages.createMacvlan({ ...place, mode: one.mode, mac: one.mac })
      : upperLinkMessages.createIpvlan({ ...place, mode: one.mode, flag: one.flag });
  rt.apply([message], what);
}

function hasKind(rt: Rtnetlink, kind: Exclude<UpperLinkKind, 'dummy'>): boolean {
  try {
    rt.apply([upperLinkMessages.probe(kind)], `probe for ${kind}`);
  } catch (error) {
    if (isNetlinkError(error, unknownKind)) return false;
    if (!isNetlinkError(error, 'EINVAL')) throw error;
  }
  return true;
}

function make(rt: Rtnetlink, kind: UpperLinkKind, message: Buffer, name: string): ParentOutcome {
  try {
    rt.apply([message], `create ${kind} ${name}`);
    return { kind: 'ready' };
  } catch (error) {
    if (isNetlinkError(error, unknownKind)) return { kind: 'unsupported', link: kind };
    throw error;
  }
}
