import type { HybridClock } from '@flotilla/store';
import { newId } from '../engine-names.js';
import type { NetworkDriver, NetworkRecord } from '../store/records.js';

/** Names that belong to the engine. */
export const predefinedNames: readonly string[] = ['bridge', 'host', 'none', 'default'];

/** A new network with nothing chosen. */
export function blankNetwork(name: string, driver: NetworkDriver, clock: HybridClock): NetworkRecord {
  return {
    id: newId(),
    name,
    createdAtNs: String(clock.now()),
    driver,
    scope: 'local',
    internal: false,
    attachable: false,
    ingress: false,
    enableIpv4: true,
    enableIpv6: false,
    ipam: { driver: 'default', options: {}, pools: [] },
    options: {},
    labels: {},
    configOnly: false,
    configFrom: '',
    predefined: predefinedNames.includes(name),
    hasUserSubnet: false,
  };
}
