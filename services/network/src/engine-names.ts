import { createHash, randomBytes } from 'node:crypto';

/** nftables table of an engine. */
export function tableName(engineId: string): string {
  return `flotilla_${engineId.replaceAll(/[^0-9a-zA-Z]/g, '').slice(0, 8)}`;
}

/** Link group of an engine's links: even, never 0 (the default group); the odd number after it is ours too. */
export function linkGroup(engineId: string): number {
  const hash = createHash('sha256').update(engineId).digest().readUInt32BE(0);
  return ((hash & 0x7ffffffe) | 0x40000000) >>> 0;
}

/** 64 hex digits. */
export function newId(): string {
  return randomBytes(32).toString('hex');
}

/** Name of the host's end of an endpoint: as long as a name may be, random as the id is. */
export function hostInterfaceName(endpointId: string): string {
  return `veth${endpointId.slice(0, 11)}`;
}

export function bridgeNameOf(networkId: string): string {
  return `br-${networkId.slice(0, 12)}`;
}
