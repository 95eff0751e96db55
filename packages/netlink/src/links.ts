import { macBytes, macText } from './addresses.js';
import { attribute, decodeAttributes, decodeNested, nested, readText, text, uint32, uint8 } from './attributes.js';
import { NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, encodeMessage } from './message.js';
import * as rt from './rtnetlink-constants.js';

/** A network interface as the kernel tells it. */
export interface Link {
  index: number;
  name: string;
  isUp: boolean;
  mtu: number;
  mac: string;
  /** Index of the link that it sits on (macvlan, vlan) or of its other end (veth); of another namespace, perhaps. */
  lower?: number;
  /** Index of the bridge that it is a port of. */
  master?: number;
  /** Link kind: bridge, veth, ...; absent for hardware and loopback. */
  kind?: string;
  alias?: string;
  group: number;
}

export interface BridgeOptions {
  name: string;
  mac: string;
  mtu?: number;
  group?: number;
}

export interface VethOptions {
  /** Name of the end that stays here. */
  name: string;
  /** Name, MAC and namespace of the other end; it is left down. */
  peer: { name: string; mac: string; namespaceFd: number };
  /** Index of the bridge that the end here becomes a port of. */
  master?: number;
  mtu?: number;
  group?: number;
}

export interface PortOptions {
  hairpin: boolean;
  isolated: boolean;
}

const IFINFO_SIZE = 16;

/** struct ifinfomsg; `up` absent leaves the flag as it is. */
export function interfaceInfo(options: { index?: number; up?: boolean } = {}): Buffer {
  const bytes = Buffer.alloc(IFINFO_SIZE);
  bytes.writeInt32LE(options.index ?? 0, 4);
  if (options.up !== undefined) {
    bytes.writeUInt32LE(options.up ? rt.IFF_UP : 0, 8);
    bytes.writeUInt32LE(rt.IFF_UP, 12);
  }
  return bytes;
}

const optional = <T>(value: T | undefined, encode: (value: T) => Buffer): Buffer =>
  value === undefined ? Buffer.alloc(0) : encode(value);
const name = (value: string): Buffer => attribute(rt.IFLA_IFNAME, text(value));
const mtuOf = (value: number | undefined): Buffer => optional(value, (mtu) => attribute(rt.IFLA_MTU, uint32(mtu)));
const groupOf = (value: number | undefined): Buffer =>
  optional(value, (group) => attribute(rt.IFLA_GROUP, uint32(group)));

/** Messages about links. Where a link is named, no index has to be looked up first. */
export const linkMessages = {
  createBridge: (options: BridgeOptions): Buffer =>
    encodeMessage(
      rt.RTM_NEWLINK,
      NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
      interfaceInfo({ up: true }),
      name(options.name),
      attribute(rt.IFLA_ADDRESS, macBytes(options.mac)),
      mtuOf(options.mtu),
      groupOf(options.group),
      nested(rt.IFLA_LINKINFO, attribute(rt.IFLA_INFO_KIND, text('bridge'))),
    ),

  createVeth: (options: VethOptions): Buffer =>
    encodeMessage(
      rt.RTM_NEWLINK,
      NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
      interfaceInfo({ up: true }),
      name(options.name),
      optional(options.master, (master) => attribute(rt.IFLA_MASTER, uint32(master))),
      mtuOf(options.mtu),
      groupOf(options.group),
      nested(
        rt.IFLA_LINKINFO,
        attribute(rt.IFLA_INFO_KIND, text('veth')),
        nested(
          rt.IFLA_INFO_DATA,
          nested(
            rt.VETH_INFO_PEER,
            interfaceInfo(),
            name(options.peer.name),
            attribute(rt.IFLA_ADDRESS, macBytes(options.peer.mac)),
            mtuOf(options.mtu),
            attribute(rt.IFLA_NET_NS_FD, uint32(options.peer.namespaceFd)),
          ),
        ),
      ),
    ),

  setBridgePort: (port: string, options: PortOptions): Buffer =>
    encodeMessage(
      rt.RTM_NEWLINK,
      NLM_F_ACK,
      interfaceInfo(),
      name(port),
      nested(
        rt.IFLA_LINKINFO,
        attribute(rt.IFLA_INFO_SLAVE_KIND, text('bridge')),
        nested(
          rt.IFLA_INFO_SLAVE_DATA,
          attribute(rt.IFLA_BRPORT_MODE, uint8(options.hairpin ? 1 : 0)),
          attribute(rt.IFLA_BRPORT_ISOLATED, uint8(options.isolated ? 1 : 0)),
        ),
      ),
    ),

  setUp: (link: string): Buffer => encodeMessage(rt.RTM_NEWLINK, NLM_F_ACK, interfaceInfo({ up: true }), name(link)),

  setDown: (link: string): Buffer => encodeMessage(rt.RTM_NEWLINK, NLM_F_ACK, interfaceInfo({ up: false }), name(link)),

  setMtu: (link: string, mtu: number): Buffer =>
    encodeMessage(rt.RTM_NEWLINK, NLM_F_ACK, interfaceInfo(), name(link), mtuOf(mtu)),

  setMaster: (link: string, master: number): Buffer =>
    encodeMessage(rt.RTM_NEWLINK, NLM_F_ACK, interfaceInfo(), name(link), attribute(rt.IFLA_MASTER, uint32(master))),

  setAlias: (link: string, alias: string): Buffer =>
    encodeMessage(
      rt.RTM_NEWLINK,
      NLM_F_ACK,
      interfaceInfo(),
      name(link),
      attribute(rt.IFLA_IFALIAS, Buffer.from(alias)),
    ),

  setGroup: (link: string, group: number): Buffer =>
    encodeMessage(rt.RTM_NEWLINK, NLM_F_ACK, interfaceInfo(), name(link), groupOf(group)),

  deleteLink: (link: string): Buffer => encodeMessage(rt.RTM_DELLINK, NLM_F_ACK, interfaceInfo(), name(link)),

  /** Delete every link of a group in one go: they share one grace period. */
  deleteGroup: (group: number): Buffer => encodeMessage(rt.RTM_DELLINK, NLM_F_ACK, interfaceInfo(), groupOf(group)),

  getLink: (link: string): Buffer => encodeMessage(rt.RTM_GETLINK, NLM_F_ACK, interfaceInfo(), name(link)),

  dumpLinks: (): Buffer => encodeMessage(rt.RTM_GETLINK, NLM_F_DUMP, interfaceInfo()),

  /** Tell a bridge behind which port a MAC address is, so that nothing learned earlier misleads it. */
  setForwarding: (portIndex: number, mac: string): Buffer => {
    const header = Buffer.alloc(12);
    header[0] = 7; // AF_BRIDGE
    header.writeInt32LE(portIndex, 4);
    header.writeUInt16LE(rt.NUD_NOARP, 8); // a static entry: others are refused while the port has no carrier
    header[10] = rt.NTF_MASTER;
    return encodeMessage(
      rt.RTM_NEWNEIGH,
      NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE,
      header,
      attribute(rt.NDA_LLADDR, macBytes(mac)),
    );
  },
};

/** A link from the body of an RTM_NEWLINK message. */
export function decodeLink(body: Buffer): Link {
  const attributes = decodeAttributes(body, IFINFO_SIZE);
  const kind = readText(decodeNested(attributes, rt.IFLA_LINKINFO).get(rt.IFLA_INFO_KIND));
  const master = attributes.get(rt.IFLA_MASTER)?.readUInt32LE(0);
  const lower = attributes.get(rt.IFLA_LINK)?.readUInt32LE(0);
  const alias = readText(attributes.get(rt.IFLA_IFALIAS));
  return {
    index: body.readInt32LE(4),
    name: readText(attributes.get(rt.IFLA_IFNAME)) ?? '',
    isUp: (body.readUInt32LE(8) & rt.IFF_UP) !== 0,
    mtu: attributes.get(rt.IFLA_MTU)?.readUInt32LE(0) ?? 0,
    mac: macText(attributes.get(rt.IFLA_ADDRESS) ?? Buffer.alloc(0)),
    group: attributes.get(rt.IFLA_GROUP)?.readUInt32LE(0) ?? 0,
    ...(lower === undefined ? {} : { lower }),
    ...(master === undefined ? {} : { master }),
    ...(kind === undefined ? {} : { kind }),
    ...(alias === undefined ? {} : { alias }),
  };
}
