import {
  attribute,
  decodeAttributeList,
  decodeAttributes,
  decodeNested,
  nested,
  readText,
  text,
  uint32Network,
} from './attributes.js';
import { NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, encodeMessage } from './message.js';
import { isNetlinkError } from './netlink-error.js';
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink-socket.js';
import * as nf from './nftables-constants.js';
import type { Expression } from './nftables-expressions.js';

export type TableFamily = keyof typeof nf.NFPROTO;

export interface TableName {
  family: TableFamily;
  name: string;
}

/** Key of a set or map and, for maps, the value that it leads to; concatenations joined by `concatenated`. */
export interface SetElement {
  key: Buffer;
  /** Last key of a range, in interval sets of concatenations. */
  keyEnd?: Buffer;
  value?: Buffer;
}

export interface BaseChain {
  table: TableName;
  name: string;
  /** filter, nat or route; empty for a chain without hook. */
  type: string;
  /** Hook number, -1 for a chain without hook. */
  hook: number;
  policy: 'accept' | 'drop';
}

export interface Rule {
  handle: bigint;
  /** Text left by the rule's maker, empty when none. */
  comment: string;
  /** Whether it drops or rejects everything that comes to it. */
  refusesAll: boolean;
}

/** Expressions of a rule that let every packet through to the next one. */
const passingExpressions = ['counter', 'log'];
const refusingTargets = ['DROP', 'REJECT'];

const RULE_COMMENT = 0; // NFTNL_UDATA_RULE_COMMENT: type, length, zero-terminated text
const HEADER_SIZE = 4;

function header(family: number, resource = 0): Buffer {
  return Buffer.from([family, 0, resource >> 8, resource & 0xff]);
}

function message(type: number, family: TableFamily, flags: number, ...attributes: Buffer[]): Buffer {
  return encodeMessage((nf.NFNL_SUBSYS_NFTABLES << 8) | type, flags, header(nf.NFPROTO[family]), ...attributes);
}

const changed = NLM_F_ACK;

/** A concatenated key or value: each field padded to a multiple of four bytes. */
export function concatenated(...fields: Uint8Array[]): Buffer {
  return Buffer.concat(
    fields.map((field) => Buffer.concat([field, Buffer.alloc(((field.length + 3) & ~3) - field.length)])),
  );
}

function elements(type: number, flags: number, table: TableName, set: string, list: readonly SetElement[]): Buffer {
  return message(
    type,
    table.family,
    flags,
    attribute(nf.NFTA_SET_ELEM_LIST_TABLE, text(table.name)),
    attribute(nf.NFTA_SET_ELEM_LIST_SET, text(set)),
    nested(
      nf.NFTA_SET_ELEM_LIST_ELEMENTS,
      ...list.map(({ key, keyEnd, value }) =>
        nested(
          nf.NFTA_LIST_ELEM,
          nested(nf.NFTA_SET_ELEM_KEY, attribute(nf.NFTA_DATA_VALUE, key)),
          ...(keyEnd === undefined ? [] : [nested(nf.NFTA_SET_ELEM_KEY_END, attribute(nf.NFTA_DATA_VALUE, keyEnd))]),
          ...(value === undefined ? [] : [nested(nf.NFTA_SET_ELEM_DATA, attribute(nf.NFTA_DATA_VALUE, value))]),
        ),
      ),
    ),
  );
}

/** Changes for one batch, see `Nftables.commit`. */
export const nftMessages = {
  addTable: (table: TableName): Buffer =>
    message(nf.NFT_MSG_NEWTABLE, table.family, changed | NLM_F_CREATE, attribute(nf.NFTA_TABLE_NAME, text(table.name))),
  deleteTable: (table: TableName): Buffer =>
    message(nf.NFT_MSG_DELTABLE, table.family, changed, attribute(nf.NFTA_TABLE_NAME, text(table.name))),
  addBaseChain: (
    table: TableName,
    chain: { name: string; type: 'nat' | 'filter'; hook: number; priority: number },
  ): Buffer =>
    message(
      nf.NFT_MSG_NEWCHAIN,
      table.family,
      changed | NLM_F_CREATE,
      attribute(nf.NFTA_CHAIN_TABLE, text(table.name)),
      attribute(nf.NFTA_CHAIN_NAME, text(chain.name)),
      nested(
        nf.NFTA_CHAIN_HOOK,
        attribute(nf.NFTA_HOOK_HOOKNUM, uint32Network(chain.hook)),
        attribute(nf.NFTA_HOOK_PRIORITY, uint32Network(chain.priority)),
      ),
      attribute(nf.NFTA_CHAIN_POLICY, uint32Network(nf.NF_ACCEPT)),
      attribute(nf.NFTA_CHAIN_TYPE, text(chain.type)),
    ),
  appendRule: (table: TableName, chain: string, rule: readonly Expression[]): Buffer =>
    ruleMessage(table, chain, NLM_F_APPEND, rule),
  /** Before all others of the chain. */
  insertRule: (table: TableName, chain: string, rule: readonly Expression[], comment: string): Buffer =>
    ruleMessage(table, chain, 0, rule, comment),
  deleteRule: (table: TableName, chain: string, handle: bigint): Buffer => {
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64BE(handle);
    return message(
      nf.NFT_MSG_DELRULE,
      table.family,
      changed,
      attribute(nf.NFTA_RULE_TABLE, text(table.name)),
      attribute(nf.NFTA_RULE_CHAIN, text(chain)),
      attribute(nf.NFTA_RULE_HANDLE, bytes),
    );
  },
  /** EEXIST, and nothing of the batch happens, when one of them is there. */
  addElements: (table: TableName, set: string, list: readonly SetElement[]): Buffer =>
    elements(nf.NFT_MSG_NEWSETELEM, changed | NLM_F_CREATE | NLM_F_EXCL, table, set, list),
  /** ENOENT, and nothing of the batch happens, when one of them is absent. */
  deleteElements: (table: TableName, set: string, list: readonly SetElement[]): Buffer =>
    elements(
      nf.NFT_MSG_DELSETELEM,
      changed,
      table,
      set,
      list.map(({ key, keyEnd }) => (keyEnd === undefined ? { key } : { key, keyEnd })),
    ),
};

function ruleMessage(
  table: TableName,
  chain: string,
  flags: number,
  rule: readonly Expression[],
  comment = '',
): Buffer {
  const commentBytes = text(comment);
  return message(
    nf.NFT_MSG_NEWRULE,
    table.family,
    changed | NLM_F_CREATE | flags,
    attribute(nf.NFTA_RULE_TABLE, text(table.name)),
    attribute(nf.NFTA_RULE_CHAIN, text(chain)),
    nested(nf.NFTA_RULE_EXPRESSIONS, ...rule),
    ...(comment === ''
      ? []
      : [
          attribute(
            nf.NFTA_RULE_USERDATA,
            Buffer.concat([Buffer.from([RULE_COMMENT, commentBytes.length]), commentBytes]),
          ),
        ]),
  );
}

/** nftables of the network namespace in which it was made. The maker closes it. */
export class Nftables {
  readonly #socket = new NetlinkSocket(NETLINK_NETFILTER);

  /** All changes, or none: one kernel transaction. */
  commit(changes: readonly Buffer[], what: string): void {
    if (changes.length === 0) return;
    const frame = (type: number): Buffer => encodeMessage(type, 0, header(0, nf.NFNL_SUBSYS_NFTABLES));
    this.#socket.request([frame(nf.NFNL_MSG_BATCH_BEGIN), ...changes, frame(nf.NFNL_MSG_BATCH_END)], what);
  }

  /** Elements of a set or map; undefined when the table or the set does not exist. */
  elements(table: TableName, set: string): SetElement[] | undefined {
    const request = message(
      nf.NFT_MSG_GETSETELEM,
      table.family,
      NLM_F_DUMP,
      attribute(nf.NFTA_SET_ELEM_LIST_TABLE, text(table.name)),
      attribute(nf.NFTA_SET_ELEM_LIST_SET, text(set)),
    );
    return absentIfMissing(() => this.#socket.dump(request, `dump ${table.name} ${set}`))?.flatMap((body) => {
      const list = decodeAttributes(body, HEADER_SIZE).get(nf.NFTA_SET_ELEM_LIST_ELEMENTS);
      return list === undefined ? [] : decodeAttributeList(list).map(([, element]) => decodeElement(element));
    });
  }

  /** Rules of a chain, or of the whole table; none when it does not exist. */
  rules(table: TableName, chain?: string): Rule[] {
    const request = message(
      nf.NFT_MSG_GETRULE,
      table.family,
      NLM_F_DUMP,
      attribute(nf.NFTA_RULE_TABLE, text(table.name)),
      ...(chain === undefined ? [] : [attribute(nf.NFTA_RULE_CHAIN, text(chain))]),
    );
    return (absentIfMissing(() => this.#socket.dump(request, `dump rules of ${table.name}`)) ?? []).map((body) => {
      const attributes = decodeAttributes(body, HEADER_SIZE);
      const userdata = attributes.get(nf.NFTA_RULE_USERDATA);
      const hasComment = userdata !== undefined && userdata.length > 2 && userdata[0] === RULE_COMMENT;
      return {
        handle: attributes.get(nf.NFTA_RULE_HANDLE)?.readBigUInt64BE(0) ?? 0n,
        comment: hasComment ? (readText(userdata.subarray(2, 2 + (userdata[1] ?? 0))) ?? '') : '',
        refusesAll: refusesAll(attributes.get(nf.NFTA_RULE_EXPRESSIONS)),
      };
    });
  }

  /** Chains of every table. */
  chains(): BaseChain[] {
    const request = encodeMessage((nf.NFNL_SUBSYS_NFTABLES << 8) | nf.NFT_MSG_GETCHAIN, NLM_F_DUMP, header(0));
    return this.#socket.dump(request, 'dump chains').flatMap((body) => {
      const family = familyName(body[0] ?? 0);
      return family === undefined ? [] : [decodeChain(family, body)];
    });
  }

  /** A number that changes with every change of the ruleset, whoever makes it. */
  generation(): number {
    const request = encodeMessage((nf.NFNL_SUBSYS_NFTABLES << 8) | nf.NFT_MSG_GETGEN, NLM_F_ACK, header(0));
    const [answer] = this.#socket.request([request], 'ruleset generation');
    return answer === undefined
      ? 0
      : (decodeAttributes(answer.body, HEADER_SIZE).get(nf.NFTA_GEN_ID)?.readUInt32BE(0) ?? 0);
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function absentIfMissing<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (isNetlinkError(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function familyName(value: number): TableFamily | undefined {
  return (['inet', 'ip', 'ip6'] as const).find((name) => nf.NFPROTO[name] === value);
}

function refusesAll(expressions: Buffer | undefined): boolean {
  if (expressions === undefined) return false;
  for (const [, expression] of decodeAttributeList(expressions)) {
    const attributes = decodeAttributes(expression);
    const name = readText(attributes.get(nf.NFTA_EXPR_NAME)) ?? '';
    if (passingExpressions.includes(name)) continue;
    if (name === 'reject') return true;
    const data = decodeNested(attributes, nf.NFTA_EXPR_DATA);
    // iptables-nft wraps extensions of iptables.
    if (name === 'target') return refusingTargets.includes(readText(data.get(nf.NFTA_TARGET_NAME)) ?? '');
    if (name !== 'immediate') return false;
    const verdict = decodeNested(decodeNested(data, nf.NFTA_IMMEDIATE_DATA), nf.NFTA_DATA_VERDICT);
    return verdict.get(nf.NFTA_VERDICT_CODE)?.readInt32BE(0) === nf.NF_DROP;
  }
  return false;
}

function decodeElement(bytes: Buffer): SetElement {
  const attributes = decodeAttributes(bytes);
  const valueOf = (type: number): Buffer | undefined => decodeNested(attributes, type).get(nf.NFTA_DATA_VALUE);
  const value = valueOf(nf.NFTA_SET_ELEM_DATA);
  const keyEnd = valueOf(nf.NFTA_SET_ELEM_KEY_END);
  return {
    key: valueOf(nf.NFTA_SET_ELEM_KEY) ?? Buffer.alloc(0),
    ...(keyEnd === undefined ? {} : { keyEnd }),
    ...(value === undefined ? {} : { value }),
  };
}

function decodeChain(family: TableFamily, body: Buffer): BaseChain {
  const attributes = decodeAttributes(body, HEADER_SIZE);
  return {
    table: { family, name: readText(attributes.get(nf.NFTA_CHAIN_TABLE)) ?? '' },
    name: readText(attributes.get(nf.NFTA_CHAIN_NAME)) ?? '',
    type: readText(attributes.get(nf.NFTA_CHAIN_TYPE)) ?? '',
    hook: decodeNested(attributes, nf.NFTA_CHAIN_HOOK).get(nf.NFTA_HOOK_HOOKNUM)?.readInt32BE(0) ?? -1,
    policy: attributes.get(nf.NFTA_CHAIN_POLICY)?.readUInt32BE(0) === nf.NF_DROP ? 'drop' : 'accept',
  };
}
