import { existsSync } from 'node:fs';
import { internal, messageOf } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import { familyOf } from '@flotilla/netlink';
import { hasCode } from '@flotilla/sys';
import type { PortRecord, Protocol } from '../store/records.js';
import type { PortWish } from './port-wishes.js';
import { openRelay } from './relay.js';
import type { Relay } from './relay.js';

/** Where traffic of published ports goes; it changes when a container's networks do. */
export interface PortTarget {
  ipv4: string | undefined;
  ipv6: string | undefined;
}

/** A port held on this host for a container. */
export interface HeldPort {
  readonly record: PortRecord;
  release(): void;
}

const randomTries = 20;
const wildcards = ['0.0.0.0', '::'];

/**
 * Host ports: held by real sockets, so that other processes and we never both believe to have one, and so that what the
 * firewall's maps cannot translate (::1, IPv6 towards a container without it) is still served, by relays on these sockets.
 */
export class HostPorts {
  readonly #held = new Map<string, Set<string>>();
  readonly #hasIpv6 = existsSync('/proc/net/if_inet6');
  readonly #defaultHostIp: string;

  /** @param defaultHostIp for ports that name no host address; empty for all addresses */
  constructor(defaultHostIp: string) {
    this.#defaultHostIp = defaultHostIp;
  }

  /**
   * Hold a port on each address that it is wished for.
   *
   * @param networkHostIp the network's own default address, if it has one
   * @throws EngineError `internal` in dockerd's words when it is taken; nothing is held then
   */
  async hold(wish: PortWish, target: PortTarget, networkHostIp: string): Promise<HeldPort[]> {
    const addresses = this.#addressesFor(wish, networkHostIp);
    const candidates =
      wish.hostPort === 0
        ? new Array<number>(randomTries).fill(0)
        : Array.from({ length: wish.hostPortEnd - wish.hostPort + 1 }, (_, index) => wish.hostPort + index);
    let failure: unknown;
    for (const candidate of candidates) {
      try {
        return await this.#holdAll(wish, candidate, addresses, target);
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  /**
   * Hold again what a record says, after a restart. A port that somebody else has taken meanwhile is reported and counts as
   * held all the same: the firewall still leads its traffic to the container.
   */
  async restore(record: PortRecord, target: PortTarget, onTaken: (error: unknown) => void): Promise<HeldPort> {
    const forget = this.#claim(record);
    let relay: Relay | undefined;
    try {
      relay = await openRelay(record, () => targetAddress(record, target));
    } catch (error) {
      onTaken(error);
    }
    return heldPort(record, relay, forget);
  }

  #addressesFor(wish: PortWish, networkHostIp: string): string[] {
    if (wish.hostIp !== '') return [wish.hostIp];
    if (networkHostIp !== '' && networkHostIp !== '0.0.0.0') return [networkHostIp];
    if (this.#defaultHostIp !== '') return [this.#defaultHostIp];
    return this.#hasIpv6 ? wildcards : ['0.0.0.0'];
  }

  async #holdAll(
    wish: PortWish,
    hostPort: number,
    addresses: readonly string[],
    target: PortTarget,
  ): Promise<HeldPort[]> {
    const held: HeldPort[] = [];
    let port = hostPort;
    try {
      for (const hostIp of addresses) {
        const one = await this.#holdOne(wish, hostIp, port, target);
        held.push(one);
        port = one.record.hostPort; // the same one on every address
      }
      return held;
    } catch (error) {
      for (const one of held) one.release();
      throw error;
    }
  }

  async #holdOne(wish: PortWish, hostIp: string, hostPort: number, target: PortTarget): Promise<HeldPort> {
    const { protocol, containerPort } = wish;
    const wanted: PortRecord = { protocol, containerPort, hostIp, hostPort };
    if (hostPort !== 0 && this.#isHeld(protocol, hostIp, hostPort)) {
      throw internal(`Bind for ${hostText(hostIp)}:${hostPort} failed: port is already allocated`);
    }
    // Claimed before the first await: two containers that want the same port now must not both get past the check.
    const forgetEarly = hostPort === 0 ? undefined : this.#claim(wanted);
    try {
      const relay = await openRelay(wanted, () => targetAddress(wanted, target));
      const record = { ...wanted, hostPort: relay.port };
      return heldPort(record, relay, forgetEarly ?? this.#claim(record));
    } catch (error) {
      forgetEarly?.();
      throw bindFailure(wanted, target, error);
    }
  }

  #isHeld(protocol: Protocol, hostIp: string, hostPort: number): boolean {
    const addresses = this.#held.get(`${protocol} ${hostPort}`);
    if (addresses === undefined) return false;
    const wildcard = familyOf(hostIp) === 6 ? '::' : '0.0.0.0';
    if (addresses.has(hostIp) || addresses.has(wildcard)) return true;
    return hostIp === wildcard && [...addresses].some((address) => familyOf(address) === familyOf(hostIp));
  }

  #claim({ protocol, hostIp, hostPort }: PortRecord): () => void {
    const key = `${protocol} ${hostPort}`;
    const addresses = this.#held.get(key) ?? new Set();
    this.#held.set(key, addresses.add(hostIp));
    return () => {
      addresses.delete(hostIp);
      if (addresses.size === 0) this.#held.delete(key);
    };
  }
}

function heldPort(record: PortRecord, relay: Relay | undefined, forget: () => void): HeldPort {
  return {
    record,
    release: () => {
      relay?.close();
      forget();
    },
  };
}

/** IPv6 traffic goes to the container's IPv6 address, or to its IPv4 one when it has no other. */
function targetAddress({ hostIp }: PortRecord, target: PortTarget): string | undefined {
  return familyOf(hostIp) === 6 ? (target.ipv6 ?? target.ipv4) : (target.ipv4 ?? target.ipv6);
}

function bindFailure(record: PortRecord, target: PortTarget, error: unknown): EngineError {
  const { protocol, containerPort, hostIp, hostPort } = record;
  const reason = hasCode(error, 'EADDRINUSE')
    ? 'address already in use'
    : hasCode(error, 'EADDRNOTAVAIL')
      ? 'cannot assign requested address'
      : hasCode(error, 'EACCES')
        ? 'permission denied'
        : messageOf(error);
  const to = hostText(targetAddress(record, target) ?? '');
  return internal(
    `failed to bind host port for ${hostText(hostIp)}:${hostPort}:${to}:${containerPort}/${protocol}: ${reason}`,
    { cause: error },
  );
}

function hostText(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}
