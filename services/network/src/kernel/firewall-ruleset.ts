import type { FirewallSettings } from './kernel-operations.js';

/** Names of the sets and maps, shared by the text below and the code that fills them. */
export const firewallSets = {
  bridges: 'bridges',
  internal: 'internal',
  masqueraded4: 'masqueraded4',
  masqueraded6: 'masqueraded6',
  source4: 'source4',
  source6: 'source6',
  unprotected4: 'unprotected4',
  unprotected6: 'unprotected6',
  routed4: 'routed4',
  routed6: 'routed6',
  direct4: 'direct4',
  direct6: 'direct6',
  trusted4: 'trusted4',
  trusted6: 'trusted6',
  neighbours: 'neighbours',
  separated: 'separated',
  hairpin4: 'hairpin4',
  hairpin6: 'hairpin6',
  published4: 'published4',
  published4Any: 'published4_any',
  published6: 'published6',
  published6Any: 'published6_any',
} as const;

/** Whether the IP rules see packets that stay on a bridge (br_netfilter and its switches). */
export interface BridgedTraffic {
  isIpv4Seen: boolean;
  isIpv6Seen: boolean;
}

const chains = ['published', 'guard', 'nat_prerouting', 'nat_output', 'nat_postrouting', 'forward'];

/**
 * The engine's whole table as one nft transaction that can be repeated: sets keep their elements and the `user` chain its
 * rules, our own chains are rewritten.
 *
 * - `guard`: route_localnet on the bridges would otherwise show the host's loopback services to containers.
 * - `published`: port maps, entered for every address of this host. ::1 cannot be translated; a relay serves it.
 * - `nat_postrouting`: published ports reached from the host's loopback or from the target's own bridge come back to us (by
 *   subnet: with br_netfilter such packets are bridged, and have no input interface here), and containers leave under the
 *   host's address.
 * - `forward`: established, neighbours and published traffic passes, the rest does not reach a bridge. Under its own
 *   address a container is reached where the network (unprotected, routed), the interface (trusted) or the engine (direct)
 *   allows it.
 * - `nat_prerouting`: a bridge whose neighbours may not talk to each other keeps its ports apart below IP; where IP rules see
 *   bridged packets (br_netfilter), a packet translated to a neighbour would stay below. The relays serve these.
 * - `user`: left to the user, asked first (what DOCKER-USER is for).
 *
 * A family that is off passes every chain untouched.
 */
export function firewallRuleset(table: string, settings: FirewallSettings, bridged: BridgedTraffic): string {
  const off = settings.ipv4 ? (settings.ipv6 ? '' : 'meta nfproto ipv6 accept') : 'meta nfproto ipv4 accept';
  const { acceptedMark: mark } = settings;
  const marked = mark === undefined ? '' : `oifname @bridges meta mark and ${mark.mask} == ${mark.value} accept`;
  const toRelay = [bridged.isIpv4Seen ? 'ipv4' : '', bridged.isIpv6Seen ? 'ipv6' : ''].filter(
    (family) => family !== '',
  );
  return `
table inet ${table} {
  set bridges { type ifname; }
  set internal { type ifname; }
  set masqueraded4 { type ifname; }
  set masqueraded6 { type ifname; }
  map source4 { type ifname : ipv4_addr; }
  map source6 { type ifname : ipv6_addr; }
  set unprotected4 { type ifname; }
  set unprotected6 { type ifname; }
  set routed4 { type ifname; }
  set routed6 { type ifname; }
  set direct4 { type ipv4_addr . inet_proto . inet_service; }
  set direct6 { type ipv6_addr . inet_proto . inet_service; }
  set trusted4 { type ifname . ipv4_addr . inet_proto . inet_service; }
  set trusted6 { type ifname . ipv6_addr . inet_proto . inet_service; }
  set neighbours { type ifname . ifname; }
  set separated { type ifname; }
  set hairpin4 { type ipv4_addr . ifname; flags interval; }
  set hairpin6 { type ipv6_addr . ifname; flags interval; }
  map published4 { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
  map published4_any { type inet_proto . inet_service : ipv4_addr . inet_service; }
  map published6 { type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }
  map published6_any { type inet_proto . inet_service : ipv6_addr . inet_service; }
  chain user { }
  chain published { }
  chain guard { type filter hook prerouting priority raw; policy accept; }
  chain nat_prerouting { type nat hook prerouting priority dstnat; policy accept; }
  chain nat_output { type nat hook output priority -100; policy accept; }
  chain nat_postrouting { type nat hook postrouting priority srcnat; policy accept; }
  chain forward { type filter hook forward priority filter; policy accept; }
}
${chains.map((chain) => `flush chain inet ${table} ${chain}`).join('\n')}
table inet ${table} {
  chain published {
    meta nfproto ipv4 dnat ip to ip daddr . meta l4proto . th dport map @published4
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published4_any
    meta nfproto ipv6 dnat ip6 to ip6 daddr . meta l4proto . th dport map @published6
    meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @published6_any
  }
  chain guard {
    ${off}
    iifname @bridges ip daddr 127.0.0.0/8 drop
  }
  chain nat_prerouting {
    ${off}
    ${toRelay.map((family) => `meta nfproto ${family} iifname @separated return`).join('\n    ')}
    fib daddr type local goto published
  }
  chain nat_output {
    ${off}
    ip6 daddr ::1 return
    fib daddr type local goto published
  }
  chain nat_postrouting {
    ${off}
    oifname @bridges ct status dnat ip saddr 127.0.0.0/8 masquerade
    ct status dnat ip saddr . oifname @hairpin4 masquerade
    ct status dnat ip6 saddr . oifname @hairpin6 masquerade
    meta nfproto ipv4 oifname != @bridges snat ip to meta iifname map @source4
    meta nfproto ipv6 oifname != @bridges snat ip6 to meta iifname map @source6
    meta nfproto ipv4 iifname @masqueraded4 oifname != @bridges masquerade
    meta nfproto ipv6 iifname @masqueraded6 oifname != @bridges masquerade
  }
  chain forward {
    ${off}
    jump user
    ct state established,related accept
    iifname @internal oifname != @bridges drop
    meta iifname . meta oifname @neighbours accept
    iifname @internal drop
    oifname @internal drop
    oifname @bridges ct status dnat accept
    ${marked}
    meta nfproto ipv4 oifname @unprotected4 accept
    meta nfproto ipv6 oifname @unprotected6 accept
    oifname @routed4 ip protocol icmp accept
    oifname @routed6 meta l4proto ipv6-icmp accept
    oifname @bridges ip daddr . meta l4proto . th dport @direct4 accept
    oifname @bridges ip6 daddr . meta l4proto . th dport @direct6 accept
    oifname @bridges meta iifname . ip daddr . meta l4proto . th dport @trusted4 accept
    oifname @bridges meta iifname . ip6 daddr . meta l4proto . th dport @trusted6 accept
    oifname @bridges drop
  }
}
`;
}
