import type { IpvlanFlag, IpvlanMode, MacvlanMode } from '@flotilla/netlink';
import type { FirewallMark } from '../settings.js';
import type { Protocol } from '../store/records.js';

/** What the kernel worker has to know once. */
export interface KernelSettings {
  /** nftables table of this engine, family inet. */
  table: string;
  /** Link group that marks our links; the number after it marks links that are being deleted. */
  linkGroup: number;
  /** One bind-mounted namespace per sandbox, named by container id. */
  namespaceDirectory: string;
  /** One file per sandbox whose set-up was finished: the default routes set last, empty while they are the first ones. */
  markerDirectory: string;
  /** Which families get rules; with none nftables is left alone. */
  firewall: FirewallSettings;
  /** Whether to turn on forwarding. */
  isForwardingOn: boolean;
}

export interface FirewallSettings {
  ipv4: boolean;
  ipv6: boolean;
  /** Published ports are reached under the containers' own addresses too. */
  isDirectRoutingAllowed: boolean;
  acceptedMark?: FirewallMark;
}

export interface AddressWithPrefix {
  address: string;
  prefixLength: number;
}

export interface BridgeSpec {
  name: string;
  mac: string;
  mtu: number;
  addresses: AddressWithPrefix[];
  isInternal: boolean;
  /** Containers on it may talk to each other. */
  areNeighboursAllowed: boolean;
  ipv4: BridgeFamily;
  ipv6: BridgeFamily;
}

/** How containers of a bridge are reached, and what they leave under, in one family. */
export interface BridgeFamily {
  /** Absent: their own address. */
  source?: 'masquerade' | { address: string };
  /** Every port is reached from outside, under the container's own address. */
  isUnprotected: boolean;
  /** Nothing is translated: published ports and ICMP get through under the container's own address. */
  isRouted: boolean;
}

/** `/proc/sys/net/<family>/<group>/<interface>/<key>`. */
export interface InterfaceSysctl {
  family: string;
  group: string;
  key: string;
  value: string;
}

interface CommonInterface {
  /** Name inside the sandbox. */
  name: string;
  /** Set before it comes up. */
  sysctls: InterfaceSysctl[];
  /** Empty where the kernel decides (ipvlan has that of its parent). */
  mac: string;
  addresses: AddressWithPrefix[];
}

/** An interface of a sandbox: a veth to a bridge, or a link on top of one of the host's. */
export type InterfaceSpec =
  | (CommonInterface & {
      kind: 'veth';
      /** Name of the end on the bridge. */
      hostName: string;
      mtu: number;
      bridge: string;
      isIsolated: boolean;
    })
  | (CommonInterface & { kind: 'macvlan'; parent: string; mode: MacvlanMode })
  | (CommonInterface & { kind: 'ipvlan'; parent: string; mode: IpvlanMode; flag: IpvlanFlag });

/** What macvlan and ipvlan links are put on. */
export interface ParentSpec {
  kind: 'macvlan' | 'ipvlan';
  name: string;
  /** What to make it from when it is missing: a VLAN of another link, or nothing (a dummy). Absent: it is not ours to make. */
  lower?: { name: string; vlanId: number } | 'none';
}

export type ParentOutcome =
  | { kind: 'ready' }
  /** There is no such link. */
  | { kind: 'absent'; name: string }
  /** The kernel has no links of this kind. */
  | { kind: 'unsupported'; link: string };

/** A default route: to a router, or (`via` absent) straight to whoever is on the link. */
export interface DefaultRoute {
  via?: string;
  interfaceName: string;
}

/** Default routes inside a sandbox. */
export interface GatewaySpec {
  ipv4?: DefaultRoute;
  ipv6?: DefaultRoute;
}

/**
 * Traffic for `hostAddress:hostPort` goes to the target; both are of one family. Where `hostPort` is 0 nothing is
 * translated: the target is reached under its own address.
 */
export interface Publication {
  protocol: Protocol;
  /** `0.0.0.0` and `::` mean every local address. */
  hostAddress: string;
  hostPort: number;
  targetAddress: string;
  targetPort: number;
  /** Interfaces of the host over which the target is reached under its own address too. */
  trustedInterfaces?: string[];
}

export interface DnsPorts {
  udp: number;
  tcp: number;
}

/** Descriptors of the sockets that serve 127.0.0.11 of one sandbox; the receiver owns them. */
export interface DnsSockets {
  udp: number;
  tcp: number;
}

export interface SandboxSpec {
  containerId: string;
  /** A network namespace to take over; absent: one is made. */
  adoptedNamespacePath?: string;
  interfaces: InterfaceSpec[];
  gateway?: GatewaySpec;
  publications: Publication[];
  /** Where the name server's sockets are to be; absent for none. */
  dns?: DnsPorts;
}

export interface SandboxTraces {
  containerId: string;
  hostNames: string[];
  /** Links inside that have no end outside: they must go at once, for their MAC address and their parent to be free. */
  upperNames: string[];
  publications: Publication[];
  /** Addresses whose tracked UDP flows must be forgotten. */
  addresses: string[];
}

export interface ExpectedState {
  bridges: BridgeSpec[];
  parents: ParentSpec[];
  sandboxes: SandboxSpec[];
}

/** A link of the host, and whether we have made it. */
export interface FoundLink {
  isOurs: boolean;
  addresses: AddressWithPrefix[];
}

export interface HostRoute extends AddressWithPrefix {
  linkName: string;
}

/** What the worker does; every call runs to its end before the next begins. */
export interface KernelOperations {
  /** Load the ruleset and take over what is there. */
  open(settings: KernelSettings): void;
  /** Destinations that the host can reach by a route other than the default one. */
  hostRoutes(argument: null): HostRoute[];
  findLink(name: string): FoundLink | undefined;
  /** Remove what nobody owns, restore what is missing; tells the sandboxes that are not complete (their traces are gone). */
  reconcile(expected: ExpectedState): { incomplete: string[] };
  /** A bridge that exists and is not ours is used as it is: it gets the addresses that it lacks and is never deleted. */
  ensureBridge(bridge: BridgeSpec): void;
  removeBridge(bridge: BridgeSpec): void;
  /** Make it where it is missing and ours to make. Nothing stays unless it is ready. */
  ensureParent(parent: ParentSpec): ParentOutcome;
  /** A parent that we did not make is left alone. */
  removeParent(name: string): void;
  /** All or nothing. */
  prepareSandbox(sandbox: SandboxSpec): { dns?: DnsSockets };
  releaseSandbox(traces: SandboxTraces): void;
  attachInterface(argument: { containerId: string; interface: InterfaceSpec }): void;
  detachInterface(argument: { containerId: string; interface: InterfaceSpec }): void;
  setGateway(argument: { containerId: string; gateway?: GatewaySpec }): void;
  /** Take the first ones away and add the second ones, in one transaction. */
  replacePublications(argument: { remove: Publication[]; add: Publication[] }): void;
  /** Make the DNS sockets of a sandbox, and unless they are there the rules that lead to them. */
  openDns(argument: { containerId: string; ports: DnsPorts; hasRules: boolean }): DnsSockets;
  /** Take away table and bridges, for an engine that has no sandbox and stops. */
  dismantle(argument: { bridges: BridgeSpec[]; parents: ParentSpec[] }): void;
}
