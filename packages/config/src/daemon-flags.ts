import { parseArgs } from 'node:util';
import { invalidArgument, messageOf } from '@flotilla/errors';

type FlagForm = 'text' | 'switch' | 'number' | 'list' | 'map' | 'pools' | 'options' | 'ulimits' | 'runtimes';

interface Flag {
  readonly key: string;
  readonly form: FlagForm;
  readonly short?: string;
}

// dockerd's flags; a list's flag is the singular of its key.
const flags: Readonly<Record<string, Flag>> = {
  'data-root': { key: 'data-root', form: 'text' },
  'exec-root': { key: 'exec-root', form: 'text' },
  pidfile: { key: 'pidfile', form: 'text', short: 'p' },
  host: { key: 'hosts', form: 'list', short: 'H' },
  group: { key: 'group', form: 'text', short: 'G' },
  debug: { key: 'debug', form: 'switch', short: 'D' },
  'log-level': { key: 'log-level', form: 'text', short: 'l' },
  'log-format': { key: 'log-format', form: 'text' },
  label: { key: 'labels', form: 'list' },
  'shutdown-timeout': { key: 'shutdown-timeout', form: 'number' },
  'default-stop-timeout': { key: 'default-stop-timeout', form: 'number' },
  'registry-mirror': { key: 'registry-mirrors', form: 'list' },
  'insecure-registry': { key: 'insecure-registries', form: 'list' },
  'max-concurrent-downloads': { key: 'max-concurrent-downloads', form: 'number' },
  'max-concurrent-uploads': { key: 'max-concurrent-uploads', form: 'number' },
  'max-download-attempts': { key: 'max-download-attempts', form: 'number' },
  'add-runtime': { key: 'runtimes', form: 'runtimes' },
  'default-runtime': { key: 'default-runtime', form: 'text' },
  'cgroup-parent': { key: 'cgroup-parent', form: 'text' },
  'default-shm-size': { key: 'default-shm-size', form: 'text' },
  'default-ipc-mode': { key: 'default-ipc-mode', form: 'text' },
  'default-ulimit': { key: 'default-ulimits', form: 'ulimits' },
  init: { key: 'init', form: 'switch' },
  'init-path': { key: 'init-path', form: 'text' },
  'log-driver': { key: 'log-driver', form: 'text' },
  'log-opt': { key: 'log-opts', form: 'map' },
  'no-new-privileges': { key: 'no-new-privileges', form: 'switch' },
  'seccomp-profile': { key: 'seccomp-profile', form: 'text' },
  'userns-remap': { key: 'userns-remap', form: 'text' },
  bridge: { key: 'bridge', form: 'text', short: 'b' },
  bip: { key: 'bip', form: 'text' },
  bip6: { key: 'bip6', form: 'text' },
  'default-gateway': { key: 'default-gateway', form: 'text' },
  'default-gateway-v6': { key: 'default-gateway-v6', form: 'text' },
  'default-network-opt': { key: 'default-network-opts', form: 'options' },
  mtu: { key: 'mtu', form: 'number' },
  'default-address-pool': { key: 'default-address-pools', form: 'pools' },
  ip: { key: 'ip', form: 'text' },
  dns: { key: 'dns', form: 'list' },
  'dns-opt': { key: 'dns-opts', form: 'list' },
  'dns-search': { key: 'dns-search', form: 'list' },
  'host-gateway-ip': { key: 'host-gateway-ips', form: 'list' },
  'fixed-cidr': { key: 'fixed-cidr', form: 'text' },
  'fixed-cidr-v6': { key: 'fixed-cidr-v6', form: 'text' },
  'live-restore': { key: 'live-restore', form: 'switch' },
  'storage-driver': { key: 'storage-driver', form: 'text', short: 's' },
  iptables: { key: 'iptables', form: 'switch' },
  ip6tables: { key: 'ip6tables', form: 'switch' },
  'ip-forward-no-drop': { key: 'ip-forward-no-drop', form: 'switch' },
  'allow-direct-routing': { key: 'allow-direct-routing', form: 'switch' },
  'bridge-accept-fwmark': { key: 'bridge-accept-fwmark', form: 'text' },
  'ip-forward': { key: 'ip-forward', form: 'switch' },
  'ip-masq': { key: 'ip-masq', form: 'switch' },
  icc: { key: 'icc', form: 'switch' },
  ipv6: { key: 'ipv6', form: 'switch' },
  'userland-proxy': { key: 'userland-proxy', form: 'switch' },
  'selinux-enabled': { key: 'selinux-enabled', form: 'switch' },
  tls: { key: 'tls', form: 'switch' },
  tlsverify: { key: 'tlsverify', form: 'switch' },
  experimental: { key: 'experimental', form: 'switch' },
  'raw-logs': { key: 'raw-logs', form: 'switch' },
};

export interface DaemonFlags {
  /** Settings by their key in daemon.json, in daemon.json's shapes but not checked. */
  settings: Record<string, unknown>;
  /** The flag each setting came from, for messages. */
  flagOf: Map<string, string>;
  configFile: string | undefined;
  validateOnly: boolean;
}

/** Read dockerd's flags. A switch takes `--debug` and `--debug=false`. @throws EngineError `invalidArgument` naming the flag */
export function parseDaemonFlags(argv: readonly string[]): DaemonFlags {
  const options: Record<string, { type: 'string'; short?: string; multiple: true }> = {
    'config-file': { type: 'string', multiple: true },
    validate: { type: 'string', multiple: true },
  };
  for (const [name, { short }] of Object.entries(flags)) {
    options[name] = { type: 'string', multiple: true, ...(short === undefined ? {} : { short }) };
  }
  let values: Partial<Record<string, string[]>>;
  try {
    ({ values } = parseArgs({ args: argv.map(withSwitchValue), options, strict: true, allowPositionals: false }));
  } catch (error) {
    throw invalidArgument(messageOf(error).split('. ')[0] ?? 'invalid flags', { cause: error });
  }
  const result: DaemonFlags = { settings: {}, flagOf: new Map(), configFile: undefined, validateOnly: false };
  for (const [name, given] of Object.entries(values)) {
    if (given === undefined) continue;
    const flag = flags[name];
    if (name === 'config-file') result.configFile = given.at(-1);
    else if (flag === undefined) result.validateOnly = readSwitch(name, given);
    else {
      result.settings[flag.key] = readFlag(name, flag.form, given);
      result.flagOf.set(flag.key, `--${name}`);
    }
  }
  return result;
}

const switchNames = new Set([
  ...Object.entries(flags)
    .filter(([, { form }]) => form === 'switch')
    .map(([name]) => name),
  'validate',
]);

// A switch stands alone; parseArgs is given its value so that --debug=false works too.
function withSwitchValue(argument: string): string {
  if (argument === '-D') return '--debug=true';
  return argument.startsWith('--') && switchNames.has(argument.slice(2)) ? `${argument}=true` : argument;
}

function readFlag(name: string, form: FlagForm, given: string[]): unknown {
  const last = given.at(-1) ?? '';
  switch (form) {
    case 'text':
      return last;
    case 'switch':
      return readSwitch(name, given);
    case 'number':
      if (!/^-?\d+$/.test(last)) throw invalidArgument(`invalid argument "${last}" for --${name}: expected a number`);
      return Number(last);
    case 'list':
      return given;
    case 'map':
      return Object.fromEntries(given.map((text) => pair(name, text)));
    case 'pools':
      return given.map((text) => readPool(name, text));
    case 'options':
      return readDriverOptions(name, given);
    case 'ulimits':
      return Object.fromEntries(given.map((text) => readUlimit(name, text)));
    case 'runtimes':
      return Object.fromEntries(given.map((text) => pair(name, text)).map(([runtime, path]) => [runtime, { path }]));
  }
}

function readSwitch(name: string, given: string[]): boolean {
  const last = given.at(-1);
  if (last !== 'true' && last !== 'false')
    throw invalidArgument(`invalid argument "${last ?? ''}" for --${name}: expected true or false`);
  return last === 'true';
}

function pair(flag: string, text: string): [string, string] {
  const at = text.indexOf('=');
  if (at < 1) throw invalidArgument(`invalid argument "${text}" for --${flag}: expected name=value`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** `bridge=com.docker.network.driver.mtu=1400`: an option of a driver. */
function readDriverOptions(name: string, given: string[]): Record<string, Record<string, string>> {
  const byDriver: Record<string, Record<string, string>> = {};
  for (const text of given) {
    const [driver, option] = pair(name, text);
    const [key, value] = pair(name, option);
    byDriver[driver] = { ...byDriver[driver], [key]: value };
  }
  return byDriver;
}

/** `base=172.80.0.0/16,size=24`. */
function readPool(flag: string, text: string): { base: string | undefined; size: number } {
  const fields = new Map(text.split(',').map((field) => pair(flag, field)));
  return { base: fields.get('base'), size: Number(fields.get('size')) };
}

// nofile=1024:2048
function readUlimit(flag: string, text: string): [string, { Name: string; Soft: number; Hard: number }] {
  const [name, limits] = pair(flag, text);
  const [soft = '', hard = soft] = limits.split(':');
  return [name, { Name: name, Soft: Number(soft), Hard: Number(hard) }];
}
