import { invalidArgument } from '@flotilla/errors';
import type { InterfaceSysctl } from '../kernel/kernel-operations.js';
import { isInterfaceName } from '../networks/network-options.js';

const names = { interfaceName: 'com.docker.network.endpoint.ifname', sysctls: 'com.docker.network.endpoint.sysctls' };
const families = ['ipv4', 'ipv6', 'mpls'];

type DriverOptions = Readonly<Record<string, string>>;

/** The name that an endpoint's interface is to have; undefined when any will do. @throws EngineError `invalidArgument` */
export function wantedInterfaceName(options: DriverOptions): string | undefined {
  const name = options[names.interfaceName];
  if (name === undefined || name === '') return undefined;
  if (!isInterfaceName(name) || name === 'lo' || name === '.' || name === '..')
    throw invalidArgument(`invalid endpoint settings:\ninvalid interface name ${JSON.stringify(name)}`);
  return name;
}

/**
 * Settings of an endpoint's interface: `net.ipv4.conf.IFNAME.forwarding=1`, several separated by commas.
 *
 * Nothing but words between the dots: they become a path.
 *
 * @throws EngineError `invalidArgument` in dockerd's words
 */
export function interfaceSysctls(options: DriverOptions): InterfaceSysctl[] {
  const text = options[names.sysctls];
  if (text === undefined || text === '') return [];
  return text.split(',').map((entry) => {
    const [, family = '', group = '', key = '', value = ''] =
      /^net\.([a-z0-9]+)\.([a-z0-9_]+)\.(?:IFNAME|ifname)\.([a-zA-Z0-9_]+)=(.*)$/s.exec(entry) ?? [];
    if (!families.includes(family)) {
      throw invalidArgument(
        `invalid endpoint settings:\nunrecognised network interface sysctl '${entry}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'`,
      );
    }
    return { family, group, key, value };
  });
}

/** Whether an endpoint's own settings leave it without IPv6. */
export function isIpv6SwitchedOff(options: DriverOptions): boolean {
  return interfaceSysctls(options).some(
    ({ family, group, key, value }) =>
      family === 'ipv6' && group === 'conf' && key === 'disable_ipv6' && value.trim() !== '0',
  );
}
