import type { Protocol } from '../store/records.js';

/** What the kernel worker has to know once. */
export interface KernelSettings {
  /** nftables table of this engine, family inet. */
  table: string;
  /** Link group that marks our links; the number after it marks links that are being deleted. */
  linkGroup: number;
  /** One bind-mounted namespace per sandbox, named by container id. */
  namespaceDirectory: string;
  /** One empty file per sandbox whose set-up was finished. */
  markerDirectory: string;
  /** Whether to program nftables at all. */
  isFirewallOn: boolean;
  /** Whether to turn on forwarding. */
  isForwardingOn: boolean;
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
  isMasquerading: boolean;
}

export interface InterfaceSpec {
  /** Name inside the sandbox. */
  name: string;
  /** Name of the end on the bridge. */
  hostName: string;
  mac: string;
  mtu: number;
  bridge: string;
  isIsolated: boolean;
  addresses: AddressWithPrefix[];
}

/** Default gateways inside a sandbox. */
export interface GatewaySpec {
  ipv4?: string;
  ipv6?: string;
}

/** One element of the port maps: traffic for `hostAddress:hostPort` goes to the target. Both are of one family. */
export interface Publication {
  protocol: Protocol;
  /** `0.0.0.0` and `::` mean every local address. */
  hostAddress: string;
  hostPort: number;
  targetAddress: string;
  targetPort: number;
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
  publications: Publication[];
  /** Addresses whose tracked UDP flows must be forgotten. */
  addresses: string[];
}

export interface ExpectedState {
  bridges: BridgeSpec[];
  sandboxes: SandboxSpec[];
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
  /** Remove what nobody owns, restore what is missing; tells the sandboxes that are not complete (their traces are gone). */
  reconcile(expected: ExpectedState): { incomplete: string[] };
  /** A bridge that exists and is not ours is used as it is: it gets the addresses that it lacks and is never deleted. */
  ensureBridge(bridge: BridgeSpec): void;
  removeBridge(bridge: BridgeSpec): void;
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
  dismantle(bridges: BridgeSpec[]): void;
}
