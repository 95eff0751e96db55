import { addressBytes } from '@flotilla/netlink';

export const recordTypes = { a: 1, ptr: 12, aaaa: 28, opt: 41 } as const;
export const responseCodes = { noError: 0, formatError: 1, serverFailure: 2, nameError: 3, notImplemented: 4 } as const;

const HEADER_SIZE = 12;
const MAX_NAME = 255;
const CLASS_IN = 1;
const MIN_UDP_SIZE = 512;
const QUESTION_POINTER = 0xc00c; // the name of the first question
const FLAG_RESPONSE = 0x8000;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;
const OPCODE_MASK = 0x7800;

/** The one question of a query. */
export interface Question {
  /** Lower case, without the closing dot; empty for the root. */
  name: string;
  type: number;
  class: number;
  /** Offset behind the question in the query. */
  end: number;
  /** Largest answer that the asker takes over UDP. */
  udpSize: number;
}

/** Not a query that can be answered; `code` is what to answer, undefined when nothing should be. */
export class MalformedQuery extends Error {
  readonly code: number | undefined;

  constructor(message: string, code: number | undefined) {
    super(message);
    this.name = 'MalformedQuery';
    this.code = code;
  }
}

/**
 * Read the question of a query.
 *
 * @throws MalformedQuery
 */
export function parseQuestion(query: Buffer): Question {
  if (query.length < HEADER_SIZE) throw new MalformedQuery('shorter than a header', undefined);
  const flags = query.readUInt16BE(2);
  if ((flags & FLAG_RESPONSE) !== 0) throw new MalformedQuery('a response', undefined);
  if ((flags & OPCODE_MASK) !== 0) throw new MalformedQuery('not a standard query', responseCodes.notImplemented);
  if (query.readUInt16BE(4) !== 1) throw new MalformedQuery('not one question', responseCodes.formatError);
  const labels: string[] = [];
  let offset = HEADER_SIZE;
  for (;;) {
    const length = query[offset];
    // A question's name is the first in the message: there is nothing that a pointer could lead to.
    if (length === undefined || length > 63) throw new MalformedQuery('bad name', responseCodes.formatError);
    offset += 1;
    if (length === 0) break;
    if (offset + length > query.length || offset + length - HEADER_SIZE > MAX_NAME) {
      throw new MalformedQuery('bad name', responseCodes.formatError);
    }
    labels.push(query.toString('latin1', offset, offset + length).toLowerCase());
    offset += length;
  }
  if (offset + 4 > query.length) throw new MalformedQuery('no type and class', responseCodes.formatError);
  const end = offset + 4;
  return {
    name: labels.join('.'),
    type: query.readUInt16BE(offset),
    class: query.readUInt16BE(offset + 2),
    end,
    udpSize: announcedSize(query, end),
  };
}

/** The UDP size of an EDNS record right behind the question, where every resolver puts it. */
function announcedSize(query: Buffer, end: number): number {
  const hasOne = query.readUInt16BE(6) === 0 && query.readUInt16BE(8) === 0 && query.readUInt16BE(10) > 0;
  if (!hasOne || end + 5 > query.length || query[end] !== 0) return MIN_UDP_SIZE;
  if (query.readUInt16BE(end + 1) !== recordTypes.opt) return MIN_UDP_SIZE;
  return Math.max(MIN_UDP_SIZE, query.readUInt16BE(end + 3));
}

/** An answer without records, with the question repeated as far as it could be read. */
export function emptyAnswer(query: Buffer, question: Question | undefined, code: number): Buffer {
  return encodeAnswer(query, question, [], code, false);
}

/** Address records for the question's name; cut and marked when they do not fit into `limit` bytes. */
export function addressAnswer(
  query: Buffer,
  question: Question,
  addresses: readonly string[],
  ttlSeconds: number,
  limit: number,
): Buffer {
  const records = addresses.map((address) => resourceRecord(question.type, ttlSeconds, addressBytes(address)));
  const room = Math.max(0, limit - question.end);
  const fitting: Buffer[] = [];
  let size = 0;
  for (const record of records) {
    size += record.length;
    if (size > room) break;
    fitting.push(record);
  }
  return encodeAnswer(query, question, fitting, responseCodes.noError, fitting.length < records.length);
}

export function pointerAnswer(query: Buffer, question: Question, name: string, ttlSeconds: number): Buffer {
  const labels = name.split('.').filter((label) => label !== '');
  const data = Buffer.concat([
    ...labels.flatMap((label) => {
      const bytes = Buffer.from(label, 'latin1').subarray(0, 63);
      return [Buffer.from([bytes.length]), bytes];
    }),
    Buffer.from([0]),
  ]);
  return encodeAnswer(
    query,
    question,
    [resourceRecord(recordTypes.ptr, ttlSeconds, data)],
    responseCodes.noError,
    false,
  );
}

function resourceRecord(type: number, ttlSeconds: number, data: Buffer): Buffer {
  const record = Buffer.alloc(12 + data.length);
  record.writeUInt16BE(QUESTION_POINTER, 0);
  record.writeUInt16BE(type, 2);
  record.writeUInt16BE(CLASS_IN, 4);
  record.writeUInt32BE(ttlSeconds, 6);
  record.writeUInt16BE(data.length, 10);
  data.copy(record, 12);
  return record;
}

function encodeAnswer(
  query: Buffer,
  question: Question | undefined,
  records: readonly Buffer[],
  code: number,
  isCut: boolean,
): Buffer {
  const header = Buffer.alloc(HEADER_SIZE);
  header.writeUInt16BE(query.readUInt16BE(0), 0);
  const kept = query.readUInt16BE(2) & (OPCODE_MASK | FLAG_RECURSION_DESIRED);
  header.writeUInt16BE(FLAG_RESPONSE | kept | FLAG_RECURSION_AVAILABLE | (isCut ? FLAG_TRUNCATED : 0) | code, 2);
  header.writeUInt16BE(question === undefined ? 0 : 1, 4);
  header.writeUInt16BE(records.length, 6);
  const asked = question === undefined ? Buffer.alloc(0) : query.subarray(HEADER_SIZE, question.end);
  return Buffer.concat([header, asked, ...records]);
}

/** The address that a name of in-addr.arpa or ip6.arpa stands for; undefined when it is none. */
export function reverseName(name: string): string | undefined {
  const v4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.in-addr\.arpa$/.exec(name);
  if (v4 !== null) return v4.slice(1, 5).reverse().join('.');
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa$/.exec(name)?.[1];
  if (v6 === undefined) return undefined;
  const digits = v6.split('.').reverse().join('');
  return digits.match(/.{4}/g)?.join(':');
}
