import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { internal } from '@flotilla/errors';
import type { BridgedTraffic } from './firewall-ruleset.js';

const root = '/proc/sys/net';

/** @throws EngineError `internal` when forwarding is off and cannot be turned on */
export function enableIpv4Forwarding(): void {
  setSysctl('ipv4/ip_forward', '1');
}

/** Interfaces that take routes from router advertisements go on doing so, which forwarding would otherwise end. */
export function enableIpv6Forwarding(): void {
  if (readSysctl('ipv6/conf/all/forwarding') === '1') return;
  for (const name of readdirSync(`${root}/ipv6/conf`)) {
    if (readSysctl(`ipv6/conf/${name}/accept_ra`) === '1') setSysctl(`ipv6/conf/${name}/accept_ra`, '2');
  }
  setSysctl('ipv6/conf/all/forwarding', '1');
}

/** Published ports on 127.0.0.1 need the kernel to route loopback addresses over the bridge. */
export function allowLoopbackRouting(bridge: string): void {
  setSysctl(`ipv4/conf/${bridge}/route_localnet`, '1');
}

export function bridgedTraffic(): BridgedTraffic {
  return {
    isIpv4Seen: readSysctl('bridge/bridge-nf-call-iptables') === '1',
    isIpv6Seen: readSysctl('bridge/bridge-nf-call-ip6tables') === '1',
  };
}

function readSysctl(name: string): string | undefined {
  try {
    return readFileSync(`${root}/${name}`, 'utf8').trim();
  } catch {
    return undefined;
  }
}

function setSysctl(name: string, value: string): void {
  if (readSysctl(name) === value) return;
  try {
    writeFileSync(`${root}/${name}`, value);
  } catch (error) {
    throw internal(`cannot set net/${name} to ${value}`, { cause: error });
  }
}
