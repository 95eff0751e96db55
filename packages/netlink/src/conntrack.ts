import { addressText } from './addresses.js';
import { decodeAttributes, decodeNested, nested } from './attributes.js';
import type { Attributes } from './attributes.js';
import { NLM_F_ACK, NLM_F_DUMP, encodeMessage } from './message.js';
import { isNetlinkError } from './netlink-error.js';
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink-socket.js';
import { NFNL_SUBSYS_CTNETLINK } from './nftables-constants.js';
import { AF_INET, AF_INET6 } from './socket-calls.js';

const IPCTNL_MSG_CT_GET = 1;
const IPCTNL_MSG_CT_DELETE = 2;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
const HEADER_SIZE = 4;

/** What identifies one tracked flow. */
export interface Flow {
  protocol: number;
  source: string;
  destination: string;
  destinationPort: number;
  /** Source address of replies: the real target when the flow is translated. */
  replySource: string;
}

/** Tracked flows of the namespace in which it was made. The maker closes it. */
export class Conntrack {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);

  /**
   * Forget every flow that matches; a flow that ends by itself meanwhile is fine.
   *
   * @returns how many were deleted
   */
  deleteFlows(matches: (flow: Flow) => boolean): number {
    return this.#deleteFamily(AF_INET, matches) + this.#deleteFamily(AF_INET6, matches);
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #deleteFamily(family: number, matches: (flow: Flow) => boolean): number {
    const header = Buffer.from([family, 0, 0, 0]);
    const type = (name: number): number => (NFNL_SUBSYS_CTNETLINK << 8) | name;
    let deleted = 0;
    for (const body of this.#socket.dump(
      encodeMessage(type(IPCTNL_MSG_CT_GET), NLM_F_DUMP, header),
      'dump conntrack',
    )) {
      const attributes = decodeAttributes(body, HEADER_SIZE);
      const original = attributes.get(CTA_TUPLE_ORIG);
      if (original === undefined || !matches(decodeFlow(attributes))) continue;
      try {
        this.#socket.request(
          [encodeMessage(type(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, header, nested(CTA_TUPLE_ORIG, original))],
          'delete conntrack',
        );
        deleted++;
      } catch (error) {
        if (!isNetlinkError(error, 'ENOENT')) throw error;
      }
    }
    return deleted;
  }
}

function decodeFlow(attributes: Attributes): Flow {
  const tuple = (type: number): { source: string; destination: string; protocol: number; port: number } => {
    const parts = decodeNested(attributes, type);
    const addresses = decodeNested(parts, CTA_TUPLE_IP);
    const protocol = decodeNested(parts, CTA_TUPLE_PROTO);
    const textOf = (bytes: Buffer | undefined): string => (bytes === undefined ? '' : addressText(bytes));
    return {
      source: textOf(addresses.get(1) ?? addresses.get(3)), // CTA_IP_V4_SRC, CTA_IP_V6_SRC
      destination: textOf(addresses.get(2) ?? addresses.get(4)),
      protocol: protocol.get(CTA_PROTO_NUM)?.[0] ?? 0,
      port: protocol.get(CTA_PROTO_DST_PORT)?.readUInt16BE(0) ?? 0,
    };
  };
  const original = tuple(CTA_TUPLE_ORIG);
  return {
    protocol: original.protocol,
    source: original.source,
    destination: original.destination,
    destinationPort: original.port,
    replySource: tuple(CTA_TUPLE_REPLY).source,
  };
}
