import { attribute, nested, text, uint16Network, uint32Network } from './attributes.js';
import * as nf from './nftables-constants.js';

/** One expression of a rule, encoded. Registers are numbered as in nf_tables.h (1 is the first 16-byte register). */
export type Expression = Buffer;

const FIRST_REGISTER = 1;
const SECOND_REGISTER = 2;
const META_IIFNAME = 6;
const META_OIFNAME = 7;
const META_L4PROTO = 16;
const NETWORK_HEADER = 1;
const TRANSPORT_HEADER = 2;
const NAT_DESTINATION = 1;
const INTERFACE_NAME_SIZE = 16;

const u32 = uint32Network;
const expression = (name: string, ...attributes: Buffer[]): Expression =>
  nested(nf.NFTA_LIST_ELEM, attribute(nf.NFTA_EXPR_NAME, text(name)), nested(nf.NFTA_EXPR_DATA, ...attributes));
const dataValue = (type: number, value: Uint8Array): Buffer => nested(type, attribute(nf.NFTA_DATA_VALUE, value));
const meta = (key: number): Expression => expression('meta', attribute(1, u32(FIRST_REGISTER)), attribute(2, u32(key)));
const payload = (base: number, offset: number, length: number): Expression =>
  expression(
    'payload',
    attribute(1, u32(FIRST_REGISTER)),
    attribute(2, u32(base)),
    attribute(3, u32(offset)),
    attribute(4, u32(length)),
  );
const equals = (value: Uint8Array): Expression =>
  expression('cmp', attribute(1, u32(FIRST_REGISTER)), attribute(2, u32(0)), dataValue(3, value));
const load = (register: number, value: Uint8Array): Expression =>
  expression('immediate', attribute(1, u32(register)), dataValue(2, value));

/** An interface name as nftables compares it: 16 bytes, zero-filled. */
export function interfaceNameKey(name: string): Buffer {
  const bytes = Buffer.alloc(INTERFACE_NAME_SIZE);
  bytes.write(name, 0, INTERFACE_NAME_SIZE - 1);
  return bytes;
}

export const expressions = {
  protocolIs: (protocol: number): Expression[] => [meta(META_L4PROTO), equals(Buffer.from([protocol]))],
  ipv4DestinationIs: (address: Uint8Array): Expression[] => [payload(NETWORK_HEADER, 16, 4), equals(address)],
  destinationPortIs: (port: number): Expression[] => [payload(TRANSPORT_HEADER, 2, 2), equals(uint16Network(port))],
  inputInterfaceIs: (name: string): Expression[] => [meta(META_IIFNAME), equals(interfaceNameKey(name))],
  outputInterfaceIs: (name: string): Expression[] => [meta(META_OIFNAME), equals(interfaceNameKey(name))],
  accept: (): Expression[] => [
    expression(
      'immediate',
      attribute(1, u32(0)),
      nested(2, nested(nf.NFTA_DATA_VERDICT, attribute(nf.NFTA_VERDICT_CODE, u32(nf.NF_ACCEPT)))),
    ),
  ],
  ipv4DestinationNat: (address: Uint8Array, port: number): Expression[] => [
    load(FIRST_REGISTER, address),
    load(SECOND_REGISTER, uint16Network(port)),
    expression(
      'nat',
      attribute(1, u32(NAT_DESTINATION)),
      attribute(2, u32(nf.NFPROTO.ip)),
      attribute(3, u32(FIRST_REGISTER)),
      attribute(5, u32(SECOND_REGISTER)),
    ),
  ],
};
