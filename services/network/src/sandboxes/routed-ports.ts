import { familyOf } from '@flotilla/netlink';
import type { PortWish } from '../ports/port-wishes.js';
import type { PortRecord } from '../store/records.js';
import { choosePublishers } from './gateway-choice.js';
import type { Candidate } from './gateway-choice.js';

const wildcards = { 4: '0.0.0.0', 6: '::' } as const;

/**
 * Tell the ports that are to be held on this host from those of routed networks, which are reached under the container's
 * own address: these have no port of the host (0).
 */
export function splitRouted(
  wishes: readonly PortWish[],
  candidates: readonly Candidate[],
): { held: PortWish[]; routed: PortRecord[] } {
  const { ipv4, ipv6 } = choosePublishers(candidates);
  const isRouted = {
    4: ipv4?.network.bridge?.gatewayModeIpv4 === 'routed',
    6: ipv6?.network.bridge?.gatewayModeIpv6 === 'routed',
  };
  if (!isRouted[4] && !isRouted[6]) return { held: [...wishes], routed: [] };
  const present = [...(ipv4 === undefined ? [] : [4 as const]), ...(ipv6 === undefined ? [] : [6 as const])];
  const held: PortWish[] = [];
  const routed: PortRecord[] = [];
  for (const wish of wishes) {
    const given = familyOf(wish.hostIp);
    for (const family of given === undefined ? present : [given]) {
      const hostIp = given === undefined ? wildcards[family] : wish.hostIp;
      if (!isRouted[family]) held.push({ ...wish, hostIp });
      else routed.push({ protocol: wish.protocol, containerPort: wish.containerPort, hostIp, hostPort: 0 });
    }
  }
  return { held, routed };
}
