import { invalidArgument } from '@flotilla/errors';
import { familyOf } from '@flotilla/netlink';

const prefix = 'com.docker.network.';

/** What the bridge driver understands of a network's options. */
export interface BridgeOptions {
  name: string;
  mtu: number;
  areNeighboursAllowed: boolean;
  isMasquerading: boolean;
  hostBindingIpv4: string;
  interfacePrefix: string;
}

const maxInterfaceName = 15;
const trueWords = ['1', 't', 'T', 'true', 'TRUE', 'True'];
const falseWords = ['0', 'f', 'F', 'false', 'FALSE', 'False'];

/**
 * Options of the bridge driver. Unknown ones are kept and ignored, as dockerd does.
 *
 * @throws EngineError `invalidArgument` naming the option
 */
export function parseBridgeOptions(options: Readonly<Record<string, string>>, defaults: BridgeOptions): BridgeOptions {
  const hostBindingIpv4 = options[`${prefix}bridge.host_binding_ipv4`] ?? defaults.hostBindingIpv4;
  if (hostBindingIpv4 !== '' && familyOf(hostBindingIpv4) !== 4) {
    throw invalidArgument(
      `invalid value for option ${prefix}bridge.host_binding_ipv4: ${hostBindingIpv4} is not an IPv4 address`,
    );
  }
  return {
    name: parseInterfaceName(`${prefix}bridge.name`, options[`${prefix}bridge.name`] ?? defaults.name),
    mtu: parseMtu(`${prefix}driver.mtu`, options[`${prefix}driver.mtu`], defaults.mtu),
    areNeighboursAllowed: parseFlag(`${prefix}bridge.enable_icc`, options, defaults.areNeighboursAllowed),
    isMasquerading: parseFlag(`${prefix}bridge.enable_ip_masquerade`, options, defaults.isMasquerading),
    hostBindingIpv4,
    interfacePrefix: parseInterfacePrefix(options[`${prefix}container_iface_prefix`] ?? defaults.interfacePrefix),
  };
}

function parseFlag(name: string, options: Readonly<Record<string, string>>, fallback: boolean): boolean {
  const value = options[name];
  if (value === undefined) return fallback;
  if (trueWords.includes(value)) return true;
  if (falseWords.includes(value)) return false;
  throw invalidArgument(`invalid value for option ${name}: ${JSON.stringify(value)} is neither true nor false`);
}

function parseMtu(name: string, value: string | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  const mtu = /^\d{1,5}$/.test(value) ? Number(value) : -1;
  if (mtu === 0) return fallback;
  if (mtu < 68 || mtu > 65535) throw invalidArgument(`invalid value for option ${name}: ${JSON.stringify(value)}`);
  return mtu;
}

function parseInterfaceName(name: string, value: string): string {
  if (value === '' || isInterfaceName(value)) return value;
  throw invalidArgument(`invalid value for option ${name}: ${JSON.stringify(value)} is not an interface name`);
}

function parseInterfacePrefix(value: string): string {
  if (/^[a-zA-Z][a-zA-Z0-9_.-]{0,11}$/.test(value)) return value;
  throw invalidArgument(`invalid value for option ${prefix}container_iface_prefix: ${JSON.stringify(value)}`);
}

/** What the kernel takes as the name of an interface, and nft and shells take without quoting. */
export function isInterfaceName(value: string): boolean {
  return value.length <= maxInterfaceName && /^[a-zA-Z0-9_][a-zA-Z0-9_.-]*$/.test(value);
}
