import * as z from 'zod/mini';

export const networkBlock = () =>
  z.strictObject({
    /** Interface name of the default bridge; `none` makes no default bridge. */
    bridge: z.string(),
    /** Address of the default bridge with its prefix length; from the pools when absent. */
    bip: z.optional(z.string()),
    /** 0: the default route's. */
    mtu: z.int(),
    /** Pools that new networks take subnets from; `size` is a prefix length. */
    defaultAddressPools: z.array(z.strictObject({ base: z.string(), size: z.int() })),
    /** Host address of published ports that name none; empty: all IPv4 and IPv6 addresses. */
    defaultHostIp: z.string(),
    /** Range of container addresses on the default bridge. */
    fixedCidr: z.optional(z.string()),
    fixedCidrV6: z.optional(z.string()),
    /** IPv6 on the default bridge. */
    ipv6: z.boolean(),
    /** Traffic between containers of the default bridge. */
    icc: z.boolean(),
    ipMasq: z.boolean(),
    /** Make firewall rules at all. */
    iptables: z.boolean(),
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
