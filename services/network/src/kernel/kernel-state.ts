import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  Conntrack,
  NamespaceSwitch,
  Rtnetlink,
  addressMessages,
  adoptNamespace,
  bindSocket,
  closeDescriptor,
  isNetlinkError,
  linkMessages,
  removeNamespace,
} from '@flotilla/netlink';
import type { Link } from '@flotilla/netlink';
import { internal } from '@flotilla/errors';
import { hasCode } from '@flotilla/sys';
import { Firewall } from './firewall.js';
import { allowLoopbackRouting, enableIpv4Forwarding, enableIpv6Forwarding } from './host-sysctls.js';
import type {
  BridgeSpec,
  DnsPorts,
  DnsSockets,
  ExpectedState,
  FoundLink,
  GatewaySpec,
  HostRoute,
  InterfaceSpec,
  KernelOperations,
  KernelSettings,
  ParentOutcome,
  ParentSpec,
  Publication,
  SandboxSpec,
  SandboxTraces,
} from './kernel-operations.js';
import { configureInside, deleteInside, hasInside, replaceGateway, silenceInside } from './sandbox-interfaces.js';
import { dnsAddress } from './dns-address.js';
import { installDnsRules } from './sandbox-dns-rules.js';
import { createUpperInterface, ensureParent } from './upper-interfaces.js';

const NSFS_MAGIC = 0x6e736673;
const MAIN_TABLE = 254;
const LEAVING_LINKS_DELAY_MS = 300;
/** Asking for the generation of the ruleset takes some 20 µs; containers are cut off while a foreign flush is not noticed. */
const VERIFY_INTERVAL_MS = 200;
const UDP = 17;

/**
 * Everything that the network service has in the kernel. Runs on the worker thread; all of it is synchronous.
 *
 * What is ours is recognised without a record of it: links by their group, namespaces by their directory, rules by their
 * table. So nothing leaks that a crash left behind: `reconcile` removes what the store does not know.
 */
export class KernelState implements KernelOperations {
  readonly #namespaces = new NamespaceSwitch();
  readonly #rt = new Rtnetlink();
  readonly #leaving = new Set<string>();
  #settings: KernelSettings | undefined;
  #firewall: Firewall | undefined;
  #leavingTimer: NodeJS.Timeout | undefined;
  #verifyTimer: NodeJS.Timeout | undefined;
  readonly #report: (message: string, error: unknown) => void;

  /** @param report tells of failures in background work */
  constructor(report: (message: string, error: unknown) => void) {
    this.#report = report;
  }

  open(settings: KernelSettings): void {
    this.#settings = settings;
    mkdirSync(settings.namespaceDirectory, { recursive: true });
    mkdirSync(settings.markerDirectory, { recursive: true });
    if (settings.isForwardingOn) enableIpv4Forwarding();
    if (!settings.firewall.ipv4 && !settings.firewall.ipv6) return;
    this.#firewall = new Firewall(settings.table, settings.firewall);
    this.#firewall.load();
    this.#verifyTimer = setInterval(() => this.#verifyFirewall(), VERIFY_INTERVAL_MS);
  }

  hostRoutes(): HostRoute[] {
    const links = new Map(this.#rt.links().map((link) => [link.index, link.name]));
    return this.#rt
      .routes()
      .flatMap(({ destination, table, linkIndex }) =>
        destination === undefined || table !== MAIN_TABLE
          ? []
          : [{ ...destination, linkName: links.get(linkIndex ?? 0) ?? '' }],
      );
  }

  findLink(name: string): FoundLink | undefined {
    const link = this.#rt.findLink(name);
    if (link === undefined) return undefined;
    const addresses = this.#rt
      .addresses()
      .filter(({ linkIndex }) => linkIndex === link.index)
      .map(({ address, prefixLength }) => ({ address, prefixLength }));
    return { isOurs: link.group === this.#opened().linkGroup, addresses };
  }

  reconcile({ bridges, parents, sandboxes }: ExpectedState): { incomplete: string[] } {
    const { namespaceDirectory, markerDirectory } = this.#opened();
    const complete = new Map<string, SandboxSpec>();
    const incomplete: string[] = [];
    for (const sandbox of sandboxes) {
      if (this.#isComplete(sandbox.containerId)) complete.set(sandbox.containerId, sandbox);
      else incomplete.push(sandbox.containerId);
    }
    for (const name of readdirSync(namespaceDirectory)) {
      if (!complete.has(name)) removeNamespace(join(namespaceDirectory, name));
    }
    for (const name of readdirSync(markerDirectory)) {
      if (!complete.has(name)) rmSync(join(markerDirectory, name));
    }
    const publications = [...complete.values()].flatMap((sandbox) => sandbox.publications);
    this.#removeStrangers(bridges, parents, [...complete.values()]);
    this.#firewall?.expect(bridges, publications);
    for (const bridge of bridges) this.#ensureBridgeLink(bridge);
    for (const parent of parents) this.#restoreParent(parent);
    this.#firewall?.synchronize();
    for (const sandbox of complete.values()) this.#restoreInterfaces(sandbox);
    return { incomplete };
  }

  ensureBridge(bridge: BridgeSpec): void {
    this.#leaving.delete(bridge.name);
    this.#ensureBridgeLink(bridge);
    this.#firewall?.setBridge(bridge);
  }

  /** The link itself goes a little later, see `#leave`; without addresses it is in nobody's way. */
  removeBridge(bridge: BridgeSpec): void {
    this.#firewall?.deleteBridge(bridge.name);
    const link = this.#rt.findLink(bridge.name);
    if (link?.group !== this.#opened().linkGroup) return;
    this.#ensureAddresses(link, { ...bridge, addresses: [] });
    this.#leave([bridge.name]);
  }

  ensureParent(parent: ParentSpec): ParentOutcome {
    this.#leaving.delete(parent.name);
    return ensureParent(this.#rt, parent, this.#opened().linkGroup);
  }

  removeParent(name: string): void {
    this.#deleteOwnLink(name);
  }

  prepareSandbox(sandbox: SandboxSpec): { dns?: DnsSockets } {
    const path = this.#namespacePath(sandbox.containerId);
    removeNamespace(path);
    const { adoptedNamespacePath: adopted } = sandbox;
    const fd = adopted === undefined ? this.#namespaces.create(path) : adoptNamespace(adopted, path);
    let dns: DnsSockets | undefined;
    try {
      this.#createInterfaces(fd, sandbox.interfaces);
      dns = this.#namespaces.inNamespace(fd, () => {
        configureInside(sandbox.interfaces, sandbox.gateway);
        return sandbox.dns === undefined ? undefined : openDnsSockets(sandbox.dns, false);
      });
      this.replacePublications({ remove: [], add: sandbox.publications });
      writeFileSync(this.#markerPath(sandbox.containerId), '');
      return dns === undefined ? {} : { dns };
    } catch (error) {
      if (dns !== undefined) for (const socket of [dns.udp, dns.tcp]) closeDescriptor(socket);
      this.#leave(hostNames(sandbox.interfaces));
      removeNamespace(path);
      throw error;
    } finally {
      closeSync(fd);
    }
  }

  releaseSandbox(traces: SandboxTraces): void {
    rmSync(this.#markerPath(traces.containerId), { force: true });
    this.#firewall?.replacePublications(traces.publications, []);
    this.#forgetFlows(traces);
    const path = this.#namespacePath(traces.containerId);
    if (isNamespace(path)) this.#inSandbox(traces.containerId, () => silenceInside(traces.upperNames));
    removeNamespace(path);
    this.#leave(traces.hostNames);
  }

  attachInterface({ containerId, interface: one }: { containerId: string; interface: InterfaceSpec }): void {
    let isMade = false;
    try {
      const fd = openSync(this.#namespacePath(containerId), 'r');
      try {
        this.#createInterfaces(fd, [one]);
        isMade = true;
        this.#namespaces.inNamespace(fd, () => configureInside([one], undefined));
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      // What has had this name before is another's.
      if (isMade || !isNetlinkError(error, 'EEXIST')) this.#detachAsFarAsPossible(containerId, one);
      throw error;
    }
  }

  #detachAsFarAsPossible(containerId: string, one: InterfaceSpec): void {
    try {
      this.detachInterface({ containerId, interface: one });
    } catch (error) {
      this.#report(`interface ${one.name} could not be taken away`, error);
    }
  }

  detachInterface({ containerId, interface: one }: { containerId: string; interface: InterfaceSpec }): void {
    if (one.kind === 'veth') this.#deleteLink(one.hostName);
    else this.#inSandbox(containerId, () => deleteInside(one.name));
  }

  /** The marker of the sandbox tells what was set last: a crash before the record follows is recognised by it. */
  setGateway({ containerId, gateway }: { containerId: string; gateway?: GatewaySpec }): void {
    writeFileSync(this.#markerPath(containerId), gatewayText(gateway));
    this.#inSandbox(containerId, () => replaceGateway(gateway));
  }

  replacePublications({ remove, add }: { remove: Publication[]; add: Publication[] }): void {
    this.#firewall?.replacePublications(remove, add);
    // A flow that began before would otherwise pass the port by, or go on to the old target, for as long as it goes on.
    const udp = [...remove, ...add].filter(({ protocol }) => protocol === 'udp');
    const udpPorts = new Set(udp.map(({ hostPort }) => hostPort));
    if (udpPorts.size === 0) return;
    using conntrack = new Conntrack();
    conntrack.deleteFlows((flow) => flow.protocol === UDP && udpPorts.has(flow.destinationPort));
  }

  openDns({ containerId, ports, hasRules }: { containerId: string; ports: DnsPorts; hasRules: boolean }): DnsSockets {
    return this.#inSandbox(containerId, () => openDnsSockets(ports, hasRules));
  }

  dismantle({ bridges, parents }: { bridges: BridgeSpec[]; parents: ParentSpec[] }): void {
    clearInterval(this.#verifyTimer);
    this.#deleteLeaving();
    this.#firewall?.remove();
    for (const { name } of [...bridges, ...parents]) this.#deleteOwnLink(name);
  }

  #opened(): KernelSettings {
    if (this.#settings === undefined) throw internal('the kernel worker was not opened');
    return this.#settings;
  }

  #namespacePath(containerId: string): string {
    return join(this.#opened().namespaceDirectory, containerId);
  }

  #markerPath(containerId: string): string {
    return join(this.#opened().markerDirectory, containerId);
  }

  #isComplete(containerId: string): boolean {
    return existsSync(this.#markerPath(containerId)) && isNamespace(this.#namespacePath(containerId));
  }

  #inSandbox<T>(containerId: string, fn: () => T): T {
    const fd = openSync(this.#namespacePath(containerId), 'r');
    try {
      return this.#namespaces.inNamespace(fd, fn);
    } finally {
      closeSync(fd);
    }
  }

  #createInterfaces(namespaceFd: number, interfaces: readonly InterfaceSpec[]): void {
    const { linkGroup } = this.#opened();
    for (const one of interfaces) {
      if (one.kind !== 'veth') {
        createUpperInterface(this.#rt, namespaceFd, one);
        continue;
      }
      const bridge = this.#rt.link(one.bridge);
      this.#rt.apply(
        [
          linkMessages.createVeth({
            name: one.hostName,
            peer: { name: one.name, mac: one.mac, namespaceFd },
            master: bridge.index,
            mtu: one.mtu,
            group: linkGroup,
          }),
          linkMessages.setBridgePort(one.hostName, { hairpin: true, isolated: one.isIsolated }),
        ],
        `create interface ${one.name}`,
      );
      // The container that had the address (and so the MAC) before may still be on its way out.
      this.#rt.apply([linkMessages.setForwarding(this.#rt.link(one.hostName).index, one.mac)], 'bridge forwarding');
    }
  }

  #ensureBridgeLink(bridge: BridgeSpec): void {
    const { linkGroup, isForwardingOn } = this.#opened();
    let link = this.#rt.findLink(bridge.name);
    if (link === undefined) {
      const { name, mac, mtu } = bridge;
      this.#rt.apply([linkMessages.createBridge({ name, mac, mtu, group: linkGroup })], `create bridge ${name}`);
      link = this.#rt.link(bridge.name);
    } else if (link.kind !== 'bridge') {
      throw internal(`existing interface ${bridge.name} is not a bridge`);
    } else if (!link.isUp) {
      this.#rt.apply([linkMessages.setUp(bridge.name)], `set bridge ${bridge.name} up`);
    }
    this.#ensureAddresses(link, bridge);
    allowLoopbackRouting(bridge.name);
    if (isForwardingOn && bridge.addresses.some(({ address }) => address.includes(':'))) enableIpv6Forwarding();
  }

  #ensureAddresses(link: Link, bridge: BridgeSpec): void {
    const wanted = new Set(bridge.addresses.map(addressKey));
    const present = this.#rt.addresses().filter((address) => address.linkIndex === link.index);
    const found = new Set(present.map(addressKey));
    const isLinkLocal = (address: string): boolean => address.startsWith('fe80:');
    const isOurs = link.group === this.#opened().linkGroup;
    const surplus = present.filter(
      (address) => isOurs && !wanted.has(addressKey(address)) && !isLinkLocal(address.address),
    );
    const messages = [
      ...surplus.map((address) => addressMessages.deleteAddress(address)),
      ...bridge.addresses
        .filter((address) => !found.has(addressKey(address)))
        .map((address) => addressMessages.addAddress({ linkIndex: link.index, ...address })),
    ];
    if (messages.length > 0) this.#rt.apply(messages, `set addresses of bridge ${bridge.name}`);
  }

  /** Somebody deleted and we made the bridge again, or took the port out of it. */
  #ensurePort(one: Extract<InterfaceSpec, { kind: 'veth' }>): void {
    const port = this.#rt.findLink(one.hostName);
    const bridge = this.#rt.findLink(one.bridge);
    if (port === undefined || bridge === undefined || port.master === bridge.index) return;
    this.#rt.apply(
      [
        linkMessages.setMaster(one.hostName, bridge.index),
        linkMessages.setUp(one.hostName),
        linkMessages.setBridgePort(one.hostName, { hairpin: true, isolated: one.isIsolated }),
      ],
      `restore port ${one.hostName}`,
    );
  }

  /** What cannot be put right in one sandbox must not keep the service from starting. */
  #restoreInterfaces({ containerId, interfaces, gateway }: SandboxSpec): void {
    try {
      for (const one of interfaces) {
        if (one.kind !== 'veth') this.#restoreUpperInterface(containerId, one, gateway);
        else if (this.#rt.findLink(one.hostName) === undefined) this.#restoreInterface(containerId, one, gateway);
        else this.#ensurePort(one);
      }
      const last = readFileSync(this.#markerPath(containerId), 'utf8');
      if (last !== '' && last !== gatewayText(gateway)) this.setGateway({ containerId, ...(gateway && { gateway }) });
    } catch (error) {
      this.#report(`the interfaces of container ${containerId} could not be restored`, error);
    }
  }

  /** The parent was taken away, and everything on it with it; now it is back. */
  #restoreUpperInterface(
    containerId: string,
    one: Extract<InterfaceSpec, { kind: 'macvlan' | 'ipvlan' }>,
    gateway: GatewaySpec | undefined,
  ): void {
    const isThere = this.#inSandbox(containerId, () => hasInside(one.name));
    if (isThere || this.#rt.findLink(one.parent) === undefined) return;
    this.#restoreInterface(containerId, one, gateway);
  }

  /** Somebody deleted it, and its routes went with it. */
  #restoreInterface(containerId: string, one: InterfaceSpec, gateway: GatewaySpec | undefined): void {
    this.attachInterface({ containerId, interface: one });
    this.setGateway({ containerId, ...(gateway && { gateway }) });
  }

  /** A network whose parent is gone waits for it; the others must not. */
  #restoreParent(parent: ParentSpec): void {
    try {
      const outcome = this.ensureParent(parent);
      if (outcome.kind !== 'ready') this.#report(`parent ${parent.name} of a network is not there`, outcome.kind);
    } catch (error) {
      this.#report(`parent ${parent.name} of a network could not be made`, error);
    }
  }

  #removeStrangers(
    bridges: readonly BridgeSpec[],
    parents: readonly ParentSpec[],
    sandboxes: readonly SandboxSpec[],
  ): void {
    const { linkGroup } = this.#opened();
    const known = new Set([
      ...[...bridges, ...parents].map(({ name }) => name),
      ...sandboxes.flatMap((sandbox) => hostNames(sandbox.interfaces)),
    ]);
    const strangers = this.#rt
      .links()
      .filter(({ group, name }) => group === linkGroup + 1 || (group === linkGroup && !known.has(name)));
    for (const { name } of strangers) this.#leaving.add(name);
    this.#deleteLeaving();
  }

  /**
   * Delete links a little later, all at once: a deletion blocks for a grace period of the kernel. Those whose namespace is
   * being removed are gone by then, unless something keeps the namespace alive.
   */
  #leave(names: readonly string[]): void {
    for (const name of names) this.#leaving.add(name);
    this.#leavingTimer ??= setTimeout(() => {
      this.#leavingTimer = undefined;
      try {
        this.#deleteLeaving();
      } catch (error) {
        this.#report('links could not be deleted', error);
      }
    }, LEAVING_LINKS_DELAY_MS);
  }

  #deleteLeaving(): void {
    if (this.#leaving.size === 0) return;
    const group = this.#opened().linkGroup + 1;
    const present = this.#rt.links().filter(({ name }) => this.#leaving.has(name));
    this.#leaving.clear();
    if (present.length === 0) return;
    const marked = present.filter(({ name }) =>
      this.#ignoreMissing(() => this.#rt.apply([linkMessages.setGroup(name, group)], name)),
    );
    if (marked.length > 0) this.#ignoreMissing(() => this.#rt.apply([linkMessages.deleteGroup(group)], 'delete links'));
  }

  #deleteOwnLink(name: string): void {
    if (this.#rt.findLink(name)?.group === this.#opened().linkGroup) this.#deleteLink(name);
  }

  #deleteLink(name: string): void {
    this.#ignoreMissing(() => this.#rt.apply([linkMessages.deleteLink(name)], `delete ${name}`));
  }

  #ignoreMissing(change: () => void): boolean {
    try {
      change();
      return true;
    } catch (error) {
      if (isNetlinkError(error, 'ENODEV')) return false;
      throw error;
    }
  }

  #forgetFlows({ publications, addresses }: SandboxTraces): void {
    if (!publications.some(({ protocol }) => protocol === 'udp')) return;
    const own = new Set(addresses);
    using conntrack = new Conntrack();
    conntrack.deleteFlows((flow) => flow.protocol === UDP && (own.has(flow.replySource) || own.has(flow.source)));
  }

  #verifyFirewall(): void {
    try {
      this.#firewall?.verify();
    } catch (error) {
      this.#report('the firewall table could not be restored', error);
    }
  }
}

/** Ends of the interfaces that are on the host. */
function hostNames(interfaces: readonly InterfaceSpec[]): string[] {
  return interfaces.flatMap((one) => (one.kind === 'veth' ? [one.hostName] : []));
}

function isNamespace(path: string): boolean {
  try {
    return statfsSync(path).type === NSFS_MAGIC;
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false;
    throw error;
  }
}

function gatewayText(gateway: GatewaySpec | undefined): string {
  return JSON.stringify(gateway ?? null);
}

function addressKey({ address, prefixLength }: { address: string; prefixLength: number }): string {
  return `${address}/${prefixLength}`;
}

function openDnsSockets(ports: DnsPorts, hasRules: boolean): DnsSockets {
  const udp = bindSocket('udp', dnsAddress, ports.udp);
  try {
    const tcp = bindSocket('tcp', dnsAddress, ports.tcp);
    try {
      if (!hasRules) installDnsRules({ udp: udp.port, tcp: tcp.port });
      return { udp: udp.fd, tcp: tcp.fd };
    } catch (error) {
      closeDescriptor(tcp.fd);
      throw error;
    }
  } catch (error) {
    closeDescriptor(udp.fd);
    throw error;
  }
}
