import { isIP } from 'node:net';
import { isAbsolute } from 'node:path';
import * as z from 'zod/mini';
import { serviceNames } from './base-config.js';
import { isLogDriver, LOG_DRIVERS } from './log-drivers.js';

const check = (test: (text: string) => boolean, message: string) => z.string().check(z.refine(test, message));

const absolutePath = check(isAbsolute, 'expected an absolute path');
const ipAddress = check((text) => isIP(text) !== 0, 'expected an IP address');
const isCidr = (text: string, family: 4 | 6) => {
  const [address = '', prefix = '', ...rest] = text.split('/');
  return (
    rest.length === 0 &&
    isIP(address) === family &&
    /^\d{1,3}$/.test(prefix) &&
    Number(prefix) <= (family === 4 ? 32 : 128)
  );
};
const cidr = check((text) => isCidr(text, 4), 'expected an address with a prefix length, like 172.17.0.1/16');
const cidrV6 = check((text) => isCidr(text, 6), 'expected an IPv6 address with a prefix length, like fd00::1/64');
const ipv4Address = check((text) => isIP(text) === 4, 'expected an IPv4 address');
const ipv6Address = check((text) => isIP(text) === 6, 'expected an IPv6 address');
/** A packet's mark, perhaps under a mask: decimal, or hexadecimal with 0x. */
const firewallMark = check(
  (text) => parseFirewallMark(text) !== undefined,
  'expected a mark or mark/mask of 32 bits, like 1 or 0x1/0x3',
);
const label = check((text) => /^[^=\s]+=/.test(text), 'expected key=value');
const interfaceName = check(
  (text) => /^[^\s/:]{1,15}$/.test(text),
  'expected an interface name of at most 15 characters',
);
const strings = z.array(z.string());
const natural = z.int().check(z.gte(0));
const positive = z.int().check(z.gte(1));

/** Bytes as a number, or as text with k, m, g. */
const size = z.union([
  positive,
  check((text) => /^\d+(\.\d+)?\s*[kmgt]?i?b?$/i.test(text), 'expected a size like 64M'),
]);

/** Address and port of a listener; a name could come to mean another address. */
const hostPort = check(
  (text) => splitHostPort(text) !== undefined,
  'expected an address and a port, like 127.0.0.1:5000',
);

/** `127.0.0.1:5000` or `[::1]:5000`; undefined for anything else. */
export function splitHostPort(text: string): { host: string; port: number } | undefined {
  const [, v6, v4, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = v6 ?? v4 ?? '';
  const port = Number(digits);
  return isIP(host) === (v6 === undefined ? 4 : 6) && port >= 1 && port <= 65535 ? { host, port } : undefined;
}

const isLoopback = (host: string): boolean => host.startsWith('127.') || host === '::1';

/** On the network, who asks must prove something, and over TLS. */
const registryListen = z
  .strictObject({
    address: hostPort,
    tls: z.optional(z.strictObject({ cert: absolutePath, key: absolutePath, ca: z.optional(absolutePath) })),
    'token-file': z.optional(absolutePath),
  })
  .check(
    z.refine(
      ({ address, tls, 'token-file': token }) =>
        isLoopback(splitHostPort(address)?.host ?? '') ||
        (tls !== undefined && (tls.ca !== undefined || token !== undefined)),
      'an address other than loopback needs tls with a ca for client certificates, or tls and a token-file',
    ),
  );

/** dockerd knows its overlay driver by both names. */
const storageDrivers = ['overlay2', 'overlayfs', 'vfs'];

const ulimit = z.strictObject({
  Name: z.string(),
  Soft: z.optional(z.int().check(z.gte(-1))),
  Hard: z.optional(z.int().check(z.gte(-1))),
});
const runtime = z.strictObject({ path: z.string(), runtimeArgs: z.optional(strings) });
const subnet = check(
  (text) => isCidr(text, 4) || isCidr(text, 6),
  'expected an address with a prefix length, like 172.17.0.0/16',
);
const addressPool = z
  .strictObject({ base: subnet, size: z.int() })
  .check(
    z.refine(
      ({ base, size }) => size >= Number(base.split('/')[1]) && size <= (isCidr(base, 4) ? 30 : 126),
      'expected a size that is the prefix length of subnets of base',
    ),
  );

/** `1`, `0x10/0xf0`; undefined for anything else. */
export function parseFirewallMark(text: string): { value: number; mask: number } | undefined {
  const [value, mask = 0xffffffff, ...rest] = text
    .split('/')
    .map((part) => (/^(0[xX][0-9a-fA-F]{1,8}|\d{1,10})$/.test(part) ? Number(part) : Number.NaN));
  const fits = (number: number): boolean => number >= 0 && number <= 0xffffffff;
  return rest.length === 0 && value !== undefined && fits(value) && fits(mask) ? { value, mask } : undefined;
}

/** The keys of daemon.json that do something here; ours are `nats`, `services`, `registry-cache-size` and `registry-listen`. */
export const daemonSchema = z.strictObject({
  'data-root': z.optional(absolutePath),
  'exec-root': z.optional(absolutePath),
  pidfile: z.optional(absolutePath),
  hosts: z.optional(z.array(check((text) => text.startsWith('unix:///'), 'only unix:///path is implemented yet'))),
  group: z.optional(z.string()),
  debug: z.optional(z.boolean()),
  'log-level': z.optional(z.enum(['debug', 'info', 'warn', 'error', 'fatal'])),
  'log-format': z.optional(z.enum(['text', 'json'])),
  labels: z.optional(z.array(label)),
  'min-api-version': z.optional(check((text) => /^1\.\d+$/.test(text), 'expected an API version like 1.24')),
  'shutdown-timeout': z.optional(z.int()),
  'oom-score-adjust': z.optional(z.int().check(z.gte(-1000), z.lte(1000))),
  'live-restore': z.optional(z.boolean()),
  'default-stop-timeout': z.optional(natural),

  'registry-mirrors': z.optional(z.array(check((text) => /^https?:\/\//.test(text), 'expected an http(s) URL'))),
  'insecure-registries': z.optional(strings),
  'storage-driver': z.optional(
    check((text) => storageDrivers.includes(text), `expected one of ${storageDrivers.join(', ')}`),
  ),
  'max-concurrent-downloads': z.optional(positive),
  'max-concurrent-uploads': z.optional(positive),
  'max-download-attempts': z.optional(positive),
  proxies: z.optional(
    z.strictObject({
      'http-proxy': z.optional(z.string()),
      'https-proxy': z.optional(z.string()),
      'no-proxy': z.optional(z.string()),
    }),
  ),

  'registry-listen': z.optional(registryListen),
  'registry-cache-size': z.optional(z.union([z.literal(0), z.literal('0'), size])),

  runtimes: z.optional(z.record(z.string(), runtime)),
  'default-runtime': z.optional(z.string()),
  'cgroup-parent': z.optional(z.string()),
  'default-shm-size': z.optional(size),
  'default-ipc-mode': z.optional(z.enum(['private', 'shareable'])),
  'default-ulimits': z.optional(z.record(z.string(), ulimit)),
  init: z.optional(z.boolean()),
  'init-path': z.optional(absolutePath),
  'log-driver': z.optional(check(isLogDriver, `expected one of ${[...LOG_DRIVERS, 'none'].join(', ')}`)),
  'log-opts': z.optional(z.record(z.string(), z.string())),
  'no-new-privileges': z.optional(z.boolean()),
  'userns-remap': z.optional(z.string()),
  'seccomp-profile': z.optional(
    check(
      (text) => ['builtin', 'unconfined'].includes(text) || isAbsolute(text),
      'expected builtin, unconfined or an absolute path',
    ),
  ),

  bridge: z.optional(interfaceName),
  bip: z.optional(cidr),
  bip6: z.optional(cidrV6),
  'default-gateway': z.optional(ipv4Address),
  'default-gateway-v6': z.optional(ipv6Address),
  'default-network-opts': z.optional(z.record(z.string(), z.record(z.string(), z.string()))),
  mtu: z.optional(z.int().check(z.gte(0), z.lte(65535))),
  'default-address-pools': z.optional(z.array(addressPool)),
  ip: z.optional(ipAddress),
  dns: z.optional(z.array(ipAddress)),
  'dns-opts': z.optional(strings),
  'dns-search': z.optional(strings),
  'host-gateway-ips': z.optional(z.array(ipAddress)),
  'host-gateway-ip': z.optional(ipAddress),
  'fixed-cidr': z.optional(cidr),
  'fixed-cidr-v6': z.optional(cidrV6),
  ipv6: z.optional(z.boolean()),
  icc: z.optional(z.boolean()),
  'ip-masq': z.optional(z.boolean()),
  'ip-forward': z.optional(z.boolean()),
  iptables: z.optional(z.boolean()),
  ip6tables: z.optional(z.boolean()),
  'allow-direct-routing': z.optional(z.boolean()),
  'bridge-accept-fwmark': z.optional(firewallMark),
  'resolv-conf': z.optional(absolutePath),

  nats: z.optional(z.strictObject({ url: z.string(), user: z.optional(z.string()), password: z.optional(z.string()) })),
  services: z.optional(z.partialRecord(z.enum(serviceNames), z.strictObject({ address: z.string() }))),
});
export type DaemonFile = z.output<typeof daemonSchema>;

/** Keys whose value must be the one that this engine always works by; anything else is refused as not implemented. */
export const fixedKeys: Readonly<Record<string, readonly unknown[]>> = {
  'firewall-backend': ['nftables'],
  // Forwarding that is switched on here does not come with a policy of its own: there is nothing to leave out.
  'ip-forward-no-drop': [true, false],
  'userland-proxy': [true, false],
  'selinux-enabled': [false],
  tls: [false],
  tlsverify: [false],
  'raw-logs': [true, false],
  experimental: [true, false],
  rootless: [false],
  'default-cgroupns-mode': ['private'],
  'cri-containerd': [true, false],
  'disable-legacy-registry': [true, false],
};

/** Keys of dockerd that are refused by name: what they ask for does not exist here yet. */
export const missingKeys: readonly string[] = [
  'tlscacert',
  'tlscert',
  'tlskey',
  'authorization-plugins',
  'features',
  'metrics-addr',
  'http-proxy',
  'https-proxy',
  'no-proxy',
  'storage-opts',
  'containerd',
  'containerd-namespace',
  'containerd-plugin-namespace',
  'containerd-plugins-namespace',
  'exec-opts',
  'default-init',
  'cpu-rt-period',
  'cpu-rt-runtime',
  'cdi-spec-dirs',
  'nri-opts',
  'userland-proxy-path',
  'network-control-plane-mtu',
  'builder',
  'swarm-default-advertise-addr',
  'swarm-raft-heartbeat-tick',
  'swarm-raft-election-tick',
  'node-generic-resources',
];

/** Keys that moby itself removed or ignores: accepted with a notice. */
export const ignoredKeys: readonly string[] = [
  'api-cors-header',
  'api-enable-cors',
  'allow-nondistributable-artifacts',
  'network-diagnostic-port',
  'deprecated-key-path',
  'cluster-store',
  'cluster-advertise',
  'cluster-store-opts',
  'exec-driver',
];
