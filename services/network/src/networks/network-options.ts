import { invalidArgument } from '@flotilla/errors';
import { familyOf } from '@flotilla/netlink';
import type { BridgeRecord, GatewayMode } from '../store/records.js';

const prefix = 'com.docker.network.';
const names = {
  name: `${prefix}bridge.name`,
  icc: `${prefix}bridge.enable_icc`,
  masquerade: `${prefix}bridge.enable_ip_masquerade`,
  hostBindingIpv4: `${prefix}bridge.host_binding_ipv4`,
  gatewayModeIpv4: `${prefix}bridge.gateway_mode_ipv4`,
  gatewayModeIpv6: `${prefix}bridge.gateway_mode_ipv6`,
  inhibitIpv4: `${prefix}bridge.inhibit_ipv4`,
  trustedHostInterfaces: `${prefix}bridge.trusted_host_interfaces`,
  hostIpv4: `${prefix}host_ipv4`,
  hostIpv6: `${prefix}host_ipv6`,
  interfacePrefix: `${prefix}container_iface_prefix`,
  mtu: `${prefix}driver.mtu`,
} as const;

/** Options of every driver that say what the create request says too. */
export const familyOptions = { ipv4: `${prefix}enable_ipv4`, ipv6: `${prefix}enable_ipv6` } as const;

/** What the bridge driver understands of a network's options. */
export type BridgeOptions = Omit<BridgeRecord, 'mac'>;

const gatewayModes: readonly GatewayMode[] = ['nat', 'nat-unprotected', 'routed', 'isolated'];
const maxInterfaceName = 15;
// What Go's ParseBool takes.
const trueWords = ['1', 't', 'T', 'true', 'TRUE', 'True'];
const falseWords = ['0', 'f', 'F', 'false', 'FALSE', 'False'];

/**
 * Options of the bridge driver. Unknown ones are kept and ignored, as dockerd does.
 *
 * @throws EngineError `invalidArgument` naming the option, in dockerd's words
 */
export function parseBridgeOptions(
  options: Readonly<Record<string, string>>,
  defaults: BridgeOptions,
  isInternal: boolean,
): BridgeOptions {
  const parsed: BridgeOptions = {
    ...defaults,
    name: parseInterfaceName(options[names.name] ?? '', defaults.name),
    mtu: parseMtu(options[names.mtu], defaults.mtu),
    areNeighboursAllowed: parseFlag(names.icc, options, defaults.areNeighboursAllowed),
    isMasquerading: parseFlag(names.masquerade, options, defaults.isMasquerading),
    hostBindingIpv4: parseAddress(names.hostBindingIpv4, options[names.hostBindingIpv4]) ?? defaults.hostBindingIpv4,
    interfacePrefix: parseInterfacePrefix(options[names.interfacePrefix] ?? defaults.interfacePrefix),
  };
  const modes = {
    gatewayModeIpv4: parseGatewayMode(names.gatewayModeIpv4, options),
    gatewayModeIpv6: parseGatewayMode(names.gatewayModeIpv6, options),
  };
  if (Object.values(modes).includes('isolated') && !isInternal) {
    throw invalidArgument("gateway mode 'isolated' can only be used for an internal network");
  }
  const hostIpv4 = parseAddress(names.hostIpv4, options[names.hostIpv4], 4);
  const hostIpv6 = parseAddress(names.hostIpv6, options[names.hostIpv6], 6);
  const trusted = parseInterfaces(options[names.trustedHostInterfaces] ?? '');
  return {
    ...parsed,
    ...(modes.gatewayModeIpv4 === 'nat' ? {} : { gatewayModeIpv4: modes.gatewayModeIpv4 }),
    ...(modes.gatewayModeIpv6 === 'nat' ? {} : { gatewayModeIpv6: modes.gatewayModeIpv6 }),
    ...(hostIpv4 === undefined ? {} : { hostIpv4 }),
    ...(hostIpv6 === undefined ? {} : { hostIpv6 }),
    ...(parseFlag(names.inhibitIpv4, options, false) ? { hasNoIpv4OnBridge: true } : {}),
    ...(trusted.length === 0 ? {} : { trustedHostInterfaces: trusted }),
  };
}

/** The value of an option that is true or false; undefined when it is not given. @throws EngineError `invalidArgument` */
export function parseFamilyOption(name: string, options: Readonly<Record<string, string>>): boolean | undefined {
  const value = options[name];
  if (value === undefined) return undefined;
  const parsed = parseBoolean(value);
  if (parsed === undefined) throw invalidArgument(`driver-opt ${JSON.stringify(name)} is not a valid bool`);
  return parsed;
}

function parseBoolean(value: string): boolean | undefined {
  if (trueWords.includes(value)) return true;
  return falseWords.includes(value) ? false : undefined;
}

const refusal = (name: string, value: string, reason: string): Error =>
  invalidArgument(`failed to parse ${name} value: ${value} (${reason})`);

function parseFlag(name: string, options: Readonly<Record<string, string>>, fallback: boolean): boolean {
  const value = options[name];
  if (value === undefined) return fallback;
  const parsed = parseBoolean(value);
  if (parsed === undefined)
    throw refusal(name, value, `strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`);
  return parsed;
}

function parseMtu(value: string | undefined, fallback: number): number {
  if (value === undefined) return fallback;
  if (!/^[+-]?\d{1,9}$/.test(value))
    throw refusal(names.mtu, value, `strconv.Atoi: parsing ${JSON.stringify(value)}: invalid syntax`);
  const mtu = Number(value);
  if (mtu === 0) return fallback;
  if (mtu < 68 || mtu > 65535) throw invalidArgument(`invalid MTU number: ${mtu}`);
  return mtu;
}

function parseGatewayMode(name: string, options: Readonly<Record<string, string>>): GatewayMode {
  const value = options[name];
  const mode = value === undefined ? 'nat' : gatewayModes.find((known) => known === value);
  if (mode === undefined) throw refusal(name, value ?? '', `unknown gateway mode ${value ?? ''}`);
  return mode;
}

/** @param family absent: either */
function parseAddress(name: string, value: string | undefined, family?: 4 | 6): string | undefined {
  if (value === undefined) return undefined;
  const found = familyOf(value);
  if (found === undefined) throw refusal(name, value, 'nil ip');
  if (family !== undefined && found !== family) throw refusal(name, value, `not an IPv${family} address`);
  return value;
}

function parseInterfaces(value: string): string[] {
  const interfaces = value.split(':').filter((name) => name !== '');
  const bad = interfaces.find((name) => !isInterfaceName(name));
  if (bad !== undefined) throw refusal(names.trustedHostInterfaces, value, `${bad} is not an interface name`);
  return [...new Set(interfaces)];
}

function parseInterfaceName(value: string, fallback: string): string {
  if (value === '') return fallback;
  if (isInterfaceName(value)) return value;
  throw refusal(names.name, value, 'not an interface name');
}

function parseInterfacePrefix(value: string): string {
  if (/^[a-zA-Z][a-zA-Z0-9_.-]{0,11}$/.test(value)) return value;
  throw refusal(names.interfacePrefix, value, 'not the beginning of an interface name');
}

/** What the kernel takes as the name of an interface, and nft and shells take without quoting. */
export function isInterfaceName(value: string): boolean {
  return value.length <= maxInterfaceName && /^[a-zA-Z0-9_][a-zA-Z0-9_.-]*$/.test(value);
}
