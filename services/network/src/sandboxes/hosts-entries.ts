import type { network } from '@flotilla/proto';
import { invalidArgument } from '@flotilla/errors';
import { familyOf } from '@flotilla/netlink';
import { addressesOfEndpoint } from '../networks/allocations.js';
import type { SandboxRecord } from '../store/records.js';

/**
 * Lines for /etc/hosts beyond the standard ones: what the user asked for, then the container's own addresses.
 *
 * @param gateways what `host-gateway` means
 */
export function hostsEntries(sandbox: SandboxRecord, gateways: readonly string[]): network.HostsEntry[] {
  return [
    ...sandbox.extraHosts.flatMap((entry) => extraHost(entry, gateways)),
    ...sandbox.endpoints.flatMap((endpoint) =>
      addressesOfEndpoint(endpoint).map((address) => ({ address, names: ownNames(sandbox) })),
    ),
  ];
}

function ownNames({ hostname, domainName }: SandboxRecord): string[] {
  if (domainName === '') return hostname === '' ? [] : [hostname];
  return [`${hostname}.${domainName}`, hostname];
}

/** @throws EngineError `invalidArgument` in dockerd's words */
export function extraHost(entry: string, gateways: readonly string[]): network.HostsEntry[] {
  const at = entry.indexOf(':');
  const name = entry.slice(0, at);
  const address = entry.slice(at + 1).replace(/^\[(.*)\]$/, '$1');
  if (at <= 0 || address === '') throw invalidArgument(`bad format for add-host: ${JSON.stringify(entry)}`);
  if (address === 'host-gateway') {
    if (gateways.length === 0) {
      throw invalidArgument('unable to derive the IP value for host-gateway');
    }
    return gateways.map((gateway) => ({ address: gateway, names: [name] }));
  }
  if (familyOf(address) === undefined)
    throw invalidArgument(`invalid IP address in add-host: ${JSON.stringify(address)}`);
  return [{ address, names: [name] }];
}
