import { randomInt } from 'node:crypto';
import type { Logger } from '@flotilla/log';
import { DnsServer } from '../dns/dns-server.js';
import type { Resolver } from '../dns/resolver.js';
import type { DnsPorts, DnsSockets } from '../kernel/kernel-operations.js';
import type { HeldPort, HostPorts, PortTarget } from '../ports/host-ports.js';
import type { PortWish } from '../ports/port-wishes.js';
import type { PortRecord } from '../store/records.js';

/**
 * What a sandbox has in this process: held host ports and its name server. Made anew after a restart; its end does not
 * touch the kernel's part, so traffic goes on.
 */
export class SandboxRuntime {
  readonly #containerId: string;
  readonly #log: Logger;
  readonly #target: PortTarget;
  #ports: HeldPort[] = [];
  #dns: DnsServer | undefined;

  constructor(containerId: string, target: PortTarget, log: Logger) {
    this.#containerId = containerId;
    this.#target = { ...target };
    this.#log = log;
  }

  /** Hold all ports or none. */
  async holdPorts(hostPorts: HostPorts, wishes: readonly PortWish[], networkHostIp: string): Promise<PortRecord[]> {
    for (const wish of wishes) this.#ports.push(...(await hostPorts.hold(wish, this.#target, networkHostIp)));
    return this.#ports.map((port) => port.record);
  }

  async restorePorts(hostPorts: HostPorts, records: readonly PortRecord[]): Promise<void> {
    for (const record of records.filter(({ hostPort }) => hostPort !== 0)) {
      const onTaken = (err: unknown): void =>
        this.#log.warn(
          { containerId: this.#containerId, port: record, err },
          'published port taken by another process',
        );
      this.#ports.push(await hostPorts.restore(record, this.#target, onTaken));
    }
  }

  /** Published ports lead there from now on. */
  retarget(target: PortTarget): void {
    this.#target.ipv4 = target.ipv4;
    this.#target.ipv6 = target.ipv6;
  }

  get hasDns(): boolean {
    return this.#dns !== undefined;
  }

  serveDns(sockets: DnsSockets, resolver: Resolver): void {
    this.#dns?.close();
    this.#dns = new DnsServer(this.#containerId, sockets, resolver, this.#log);
  }

  /** The name server's sockets keep the namespace alive: close them before it is to go. */
  closeDns(): void {
    this.#dns?.close();
    this.#dns = undefined;
  }

  releasePorts(): void {
    for (const port of this.#ports) port.release();
    this.#ports = [];
  }

  close(): void {
    this.closeDns();
    this.releasePorts();
  }
}

const firstDnsPort = 61000;

/** Ports for a name server's sockets: in a new namespace all are free; these are neither ephemeral nor commonly listened on. */
export function chooseDnsPorts(): DnsPorts {
  return { udp: randomInt(firstDnsPort, 65536), tcp: randomInt(firstDnsPort, 65536) };
}
