export { addressBytes, addressNumber, addressText, familyOf, macBytes, macText, numberAddress } from './addresses.js';
export type { Family } from './addresses.js';
export { uint16Network, uint32 } from './attributes.js';
export { Conntrack } from './conntrack.js';
export type { Flow } from './conntrack.js';
export { DatagramBatch } from './datagram-batch.js';
export type { DatagramSource } from './datagram-batch.js';
export { bindSocket, closeDescriptor } from './inet-sockets.js';
export type { BoundSocket } from './inet-sockets.js';
export { addressMessages } from './interface-addresses.js';
export type { InterfaceAddress } from './interface-addresses.js';
export { linkMessages } from './links.js';
export type { BridgeOptions, Link, PortOptions, VethOptions } from './links.js';
export { NamespaceSwitch, adoptNamespace, removeNamespace } from './namespaces.js';
export { NetlinkError, isNetlinkError } from './netlink-error.js';
export { NF_INET_FORWARD, NF_INET_LOCAL_OUT, NF_NAT_PRIORITY_DST } from './nftables-constants.js';
export { expressions, interfaceNameKey } from './nftables-expressions.js';
export type { Expression } from './nftables-expressions.js';
export { Nftables, concatenated, nftMessages } from './nftables.js';
export type { BaseChain, Rule, SetElement, TableFamily, TableName } from './nftables.js';
export { routeMessages } from './routes.js';
export type { Route } from './routes.js';
export { Rtnetlink } from './rtnetlink.js';
export { upperLinkMessages } from './upper-links.js';
export type {
  IpvlanFlag,
  IpvlanMode,
  IpvlanOptions,
  MacvlanMode,
  MacvlanOptions,
  UpperLinkKind,
} from './upper-links.js';
