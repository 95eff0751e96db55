import { macBytes } from './addresses.js';
import { attribute, nested, text, uint16, uint32 } from './attributes.js';
import { interfaceInfo } from './links.js';
import { NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, encodeMessage } from './message.js';
import * as rt from './rtnetlink-constants.js';

/** Kinds of links that sit on another one, and `dummy`, which can carry them. */
export type UpperLinkKind = 'macvlan' | 'ipvlan' | 'vlan' | 'dummy';

// linux/if_link.h
const macvlanModes = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
const ipvlanModes = { l2: 0, l3: 1, l3s: 2 } as const;
const ipvlanFlags = { bridge: 0, private: 1, vepa: 2 } as const;

export type MacvlanMode = keyof typeof macvlanModes;
export type IpvlanMode = keyof typeof ipvlanModes;
export type IpvlanFlag = keyof typeof ipvlanFlags;

interface UpperLinkOptions {
  /** Its name in the namespace that it is made in. */
  name: string;
  /** Index of the link below, in the socket's own namespace. */
  lower: number;
  namespaceFd: number;
}

export interface MacvlanOptions extends UpperLinkOptions {
  mac: string;
  mode: MacvlanMode;
}

export interface IpvlanOptions extends UpperLinkOptions {
  mode: IpvlanMode;
  flag: IpvlanFlag;
}

const create = (...parts: Buffer[]): Buffer =>
  encodeMessage(rt.RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, ...parts);
const kindOf = (kind: UpperLinkKind): Buffer => attribute(rt.IFLA_INFO_KIND, text(kind));

/** Where it is, what it is called and what it sits on. */
const placed = ({ name, lower, namespaceFd }: UpperLinkOptions): Buffer =>
  Buffer.concat([
    attribute(rt.IFLA_IFNAME, text(name)),
    attribute(rt.IFLA_LINK, uint32(lower)),
    attribute(rt.IFLA_NET_NS_FD, uint32(namespaceFd)),
  ]);

/** Messages that make links on top of others; those for another namespace are left down. */
export const upperLinkMessages = {
  createMacvlan: (options: MacvlanOptions): Buffer =>
    create(
      interfaceInfo(),
      placed(options),
      attribute(rt.IFLA_ADDRESS, macBytes(options.mac)),
      nested(
        rt.IFLA_LINKINFO,
        kindOf('macvlan'),
        nested(rt.IFLA_INFO_DATA, attribute(rt.IFLA_MACVLAN_MODE, uint32(macvlanModes[options.mode]))),
      ),
    ),

  /** It has the MAC address of the link below. */
  createIpvlan: (options: IpvlanOptions): Buffer =>
    create(
      interfaceInfo(),
      placed(options),
      nested(
        rt.IFLA_LINKINFO,
        kindOf('ipvlan'),
        nested(
          rt.IFLA_INFO_DATA,
          attribute(rt.IFLA_IPVLAN_MODE, uint16(ipvlanModes[options.mode])),
          attribute(rt.IFLA_IPVLAN_FLAGS, uint16(ipvlanFlags[options.flag])),
        ),
      ),
    ),

  createVlan: (options: { name: string; lower: number; id: number; group: number }): Buffer =>
    create(
      interfaceInfo({ up: true }),
      attribute(rt.IFLA_IFNAME, text(options.name)),
      attribute(rt.IFLA_LINK, uint32(options.lower)),
      attribute(rt.IFLA_GROUP, uint32(options.group)),
      nested(
        rt.IFLA_LINKINFO,
        kindOf('vlan'),
        nested(rt.IFLA_INFO_DATA, attribute(rt.IFLA_VLAN_ID, uint16(options.id))),
      ),
    ),

  createDummy: (options: { name: string; group: number }): Buffer =>
    create(
      interfaceInfo({ up: true }),
      attribute(rt.IFLA_IFNAME, text(options.name)),
      attribute(rt.IFLA_GROUP, uint32(options.group)),
      nested(rt.IFLA_LINKINFO, kindOf('dummy')),
    ),

  /**
   * Ask for a link without saying what it is to sit on: a kernel that has the kind (or can load it) refuses that with
   * EINVAL, another one with ENOTSUP. Nothing is made in either case. Not for `dummy`, which needs no other link.
   */
  probe: (kind: Exclude<UpperLinkKind, 'dummy'>): Buffer =>
    create(interfaceInfo(), nested(rt.IFLA_LINKINFO, kindOf(kind))),
};
