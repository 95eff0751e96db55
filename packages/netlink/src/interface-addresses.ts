import { addressBytes, addressText } from './addresses.js';
import { attribute, decodeAttributes } from './attributes.js';
import { NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, encodeMessage } from './message.js';
import * as rt from './rtnetlink-constants.js';
import { AF_INET, AF_INET6 } from './socket-calls.js';

/** An address on an interface. */
export interface InterfaceAddress {
  linkIndex: number;
  address: string;
  prefixLength: number;
}

const HEADER_SIZE = 8;

function message(type: number, flags: number, value: InterfaceAddress): Buffer {
  const bytes = addressBytes(value.address);
  const isV6 = bytes.length === 16;
  const header = Buffer.alloc(HEADER_SIZE);
  header[0] = isV6 ? AF_INET6 : AF_INET;
  header[1] = value.prefixLength;
  header[2] = isV6 ? rt.IFA_F_NODAD : 0; // we allocate the addresses: nobody else has them, and nobody waits a second
  header.writeUInt32LE(value.linkIndex, 4);
  return encodeMessage(type, flags, header, attribute(rt.IFA_LOCAL, bytes), attribute(rt.IFA_ADDRESS, bytes));
}

export const addressMessages = {
  addAddress: (value: InterfaceAddress): Buffer =>
    message(rt.RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, value),
  deleteAddress: (value: InterfaceAddress): Buffer => message(rt.RTM_DELADDR, NLM_F_ACK, value),
  dumpAddresses: (): Buffer => encodeMessage(rt.RTM_GETADDR, NLM_F_DUMP, Buffer.alloc(HEADER_SIZE)),
};

export function decodeInterfaceAddress(body: Buffer): InterfaceAddress {
  const attributes = decodeAttributes(body, HEADER_SIZE);
  const bytes = attributes.get(rt.IFA_LOCAL) ?? attributes.get(rt.IFA_ADDRESS) ?? Buffer.alloc(4);
  return { linkIndex: body.readUInt32LE(4), prefixLength: body[1] ?? 0, address: addressText(bytes) };
}
