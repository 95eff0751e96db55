import * as z from 'zod/mini';

export const networkBlock = () =>
  z.strictObject({
    /** Interface name of the default bridge; `none` makes no default bridge. */
    bridge: z.string(),
    /** Address of the default bridge with its prefix length; from the pools when absent. */
    bip: z.optional(z.string()),
    /** Of the default bridge; 0: 1500. */
    mtu: z.int(),
    /** Pools that new networks take subnets from; `size` is a prefix length. */
    defaultAddressPools: z.array(z.strictObject({ base: z.string(), size: z.int() })),
    /** Host address of published ports that name none; empty: all IPv4 and IPv6 addresses. */
    defaultHostIp: z.string(),
    /** Range of container addresses on the default bridge. */
    fixedCidr: z.optional(z.string()),
    fixedCidrV6: z.optional(z.string()),
    bip6: z.optional(z.string()),
    /** Routers of the default bridge's containers, where it is not the bridge. */
    defaultGateway: z.optional(z.string()),
    defaultGatewayV6: z.optional(z.string()),
    /** Options of new networks, by driver. */
    defaultNetworkOptions: z.record(z.string(), z.record(z.string(), z.string())),
    /** IPv6 on the default bridge. */
    ipv6: z.boolean(),
    /** Traffic between containers of the default bridge. */
    icc: z.boolean(),
    ipMasq: z.boolean(),
    /** Make firewall rules for IPv4, for IPv6. */
    iptables: z.boolean(),
    ip6tables: z.boolean(),
    /** Let published ports be reached under the containers' own addresses too. */
    allowDirectRouting: z.boolean(),
    /** Packets with this mark get to containers whatever else is said. */
    acceptedMark: z.optional(z.strictObject({ value: z.int(), mask: z.int() })),
    /** Switch on forwarding in the kernel. */
    ipForward: z.boolean(),
    /** The host's resolver file. */
    resolvConfPath: z.string(),
    dns: z.array(z.string()),
    dnsOptions: z.array(z.string()),
    dnsSearch: z.array(z.string()),
    /** What `host-gateway` means in extra hosts; the default bridge's address when empty. */
    hostGatewayIps: z.array(z.string()),
  });
