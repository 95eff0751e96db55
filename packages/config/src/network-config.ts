import * as z from 'zod/mini';

export const networkBlock = z.strictObject({
  /** Interface name of the default bridge; `none` makes no default bridge. */
  bridge: z.string(),
  /** Address of the default bridge with its prefix length; from the pools when absent. */
  bip: z.optional(z.string()),
  /** 0: the default route's. */
  mtu: z.int(),
  /** Pools that new networks take subnets from; `size` is a prefix length. */
  defaultAddressPools: z.array(z.strictObject({ base: z.string(), size: z.int() })),
  /** Host address of published ports that name none. */
  defaultBindAddress: z.string(),
  dns: z.array(z.string()),
  dnsOptions: z.array(z.string()),
  dnsSearch: z.array(z.string()),
  /** What `host-gateway` means in extra hosts; the default bridge's address when empty. */
  hostGatewayIps: z.array(z.string()),
});
