import { addressBytes } from '@flotilla/netlink';

export const recordTypes = { a: 1, ptr: 12, aaaa: 28, opt: 41 } as const;
export const responseCodes = { noError: 0, formatError: 1, serverFailure: 2, nameError: 3, notImplemented: 4 } as const;

const HEADER_SIZE = 12;
const MAX_NAME = 255;
const MAX_LABEL = 63;
const MIN_POINTER = 0xc0;
/** Queries have one record behind the question (EDNS), or two (a signature). */
const MAX_RECORDS = 8;
const CLASS_IN = 1;
const MIN_UDP_SIZE = 512;
/** What a UDP datagram over IPv4 can hold. */
const MAX_UDP_SIZE = 65507;
/** Root name, type, our own UDP size as the class, no flags, no options. */
const EDNS_RECORD = Buffer.from([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
/** Pointer, type, class, time to live, length of the data. */
const RECORD_HEADER_SIZE = 12;
const noRecords = { count: 0, bytes: Buffer.alloc(0) };
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
  /** Offset behind the last record of the query; what comes after it is no part of the message. */
  messageEnd: number;
  /** Largest answer that the asker takes over UDP. */
  udpSize: number;
  /** Whether the query has an EDNS record, which the answer then has too (RFC 6891, 6.1.1). */
  hasEdns: boolean;
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
  let name = '';
  let offset = HEADER_SIZE;
  for (;;) {
    const length = query[offset];
    // A question's name is the first in the message: there is nothing that a pointer could lead to.
    if (length === undefined || length > MAX_LABEL) throw new MalformedQuery('bad name', responseCodes.formatError);
    offset += 1;
    if (length === 0) break;
    if (offset + length > query.length || offset + length - HEADER_SIZE > MAX_NAME) {
      throw new MalformedQuery('bad name', responseCodes.formatError);
    }
    if (name !== '') name += '.';
    name += query.toString('latin1', offset, offset + length);
    offset += length;
  }
  if (offset + 4 > query.length) throw new MalformedQuery('no type and class', responseCodes.formatError);
  const end = offset + 4;
  return {
    name: name.toLowerCase(),
    type: query.readUInt16BE(offset),
    class: query.readUInt16BE(offset + 2),
    end,
    messageEnd: endOfRecords(query, end),
    ...announcedSize(query, end),
  };
}

/** @throws MalformedQuery unless the records that the header tells of are there: only whole messages are passed on */
function endOfRecords(query: Buffer, start: number): number {
  const count = query.readUInt16BE(6) + query.readUInt16BE(8) + query.readUInt16BE(10);
  if (count > MAX_RECORDS) throw new MalformedQuery('too many records', responseCodes.formatError);
  let offset = start;
  for (let index = 0; index < count; index++) {
    offset = endOfName(query, offset);
    if (offset + 10 > query.length) throw new MalformedQuery('record cut short', responseCodes.formatError);
    offset += 10 + query.readUInt16BE(offset + 8);
    if (offset > query.length) throw new MalformedQuery('record cut short', responseCodes.formatError);
  }
  return offset;
}

/** Offset behind a name; a pointer ends it and is not followed. */
function endOfName(query: Buffer, start: number): number {
  for (let offset = start; ;) {
    const length = query[offset];
    if (length === 0) return offset + 1;
    if (length !== undefined && length >= MIN_POINTER && offset + 2 <= query.length) return offset + 2;
    if (length === undefined || length > MAX_LABEL) throw new MalformedQuery('bad name', responseCodes.formatError);
    offset += 1 + length;
  }
}

/** The UDP size of an EDNS record right behind the question, where every resolver puts it. */
function announcedSize(query: Buffer, end: number): Pick<Question, 'udpSize' | 'hasEdns'> {
  const hasOne = query.readUInt16BE(6) === 0 && query.readUInt16BE(8) === 0 && query.readUInt16BE(10) > 0;
  const isEdns =
    hasOne &&
    end + EDNS_RECORD.length <= query.length &&
    query[end] === 0 &&
    query.readUInt16BE(end + 1) === recordTypes.opt;
  if (!isEdns) return { udpSize: MIN_UDP_SIZE, hasEdns: false };
  const announced = query.readUInt16BE(end + 3);
  return { udpSize: Math.min(MAX_UDP_SIZE, Math.max(MIN_UDP_SIZE, announced)), hasEdns: true };
}

/** Whether a message is the answer of a server to the question of `query`; a refusal may leave the question out. */
export function isAnswerTo(query: Buffer, question: Question, message: Buffer): boolean {
  if (message.length < HEADER_SIZE || (message.readUInt16BE(2) & FLAG_RESPONSE) === 0) return false;
  if (message.readUInt16BE(4) === 0) return responseCodeOf(message) !== responseCodes.noError;
  if (message.length < question.end) return false;
  const asked = (bytes: Buffer): string => bytes.toString('latin1', HEADER_SIZE, question.end).toLowerCase();
  return asked(message) === asked(query);
}

/** @param message at least a header long */
export function responseCodeOf(message: Buffer): number {
  return message.readUInt16BE(2) & 0xf;
}

/** An answer without records, with the question repeated as far as it could be read. */
export function emptyAnswer(query: Buffer, question: Question | undefined, code: number): Buffer {
  return encodeAnswer(query, question, noRecords, code, false);
}

/** Address records for the question's name; cut and marked when they do not fit into `limit` bytes. */
export function addressAnswer(
  query: Buffer,
  question: Question,
  addresses: readonly string[],
  ttlSeconds: number,
  limit: number,
): Buffer {
  const dataSize = question.type === recordTypes.aaaa ? 16 : 4;
  const room = Math.max(0, limit - question.end - (question.hasEdns ? EDNS_RECORD.length : 0));
  const fitting = Math.min(addresses.length, Math.floor(room / (RECORD_HEADER_SIZE + dataSize)));
  const records = Buffer.allocUnsafe(fitting * (RECORD_HEADER_SIZE + dataSize));
  for (let index = 0; index < fitting; index++) {
    const data = addressBytes(addresses[index] ?? '');
    writeRecord(records, index * (RECORD_HEADER_SIZE + dataSize), question.type, ttlSeconds, data);
  }
  return encodeAnswer(
    query,
    question,
    { count: fitting, bytes: records },
    responseCodes.noError,
    fitting < addresses.length,
  );
}

/** The name of the question's address; no record when it is longer than DNS allows. */
export function pointerAnswer(query: Buffer, question: Question, name: string, ttlSeconds: number): Buffer {
  const labels = name.split('.').filter((label) => label !== '');
  const data = Buffer.concat([
    ...labels.map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label, 'latin1')])),
    Buffer.from([0]),
  ]);
  const isName = data.length <= MAX_NAME && labels.every((label) => label.length <= MAX_LABEL);
  if (!isName) return encodeAnswer(query, question, noRecords, responseCodes.noError, false);
  const bytes = Buffer.alloc(RECORD_HEADER_SIZE + data.length);
  writeRecord(bytes, 0, recordTypes.ptr, ttlSeconds, data);
  return encodeAnswer(query, question, { count: 1, bytes }, responseCodes.noError, false);
}

/** A record of the question's own name. */
function writeRecord(into: Buffer, offset: number, type: number, ttlSeconds: number, data: Buffer): void {
  into.writeUInt16BE(QUESTION_POINTER, offset);
  into.writeUInt16BE(type, offset + 2);
  into.writeUInt16BE(CLASS_IN, offset + 4);
  into.writeUInt32BE(ttlSeconds, offset + 6);
  into.writeUInt16BE(data.length, offset + 10);
  data.copy(into, offset + RECORD_HEADER_SIZE);
}

/** One buffer, written in place: at 20,000 answers a second many small ones are half of the work. */
function encodeAnswer(
  query: Buffer,
  question: Question | undefined,
  records: { count: number; bytes: Buffer },
  code: number,
  isCut: boolean,
): Buffer {
  const questionEnd = question?.end ?? HEADER_SIZE;
  const hasEdns = question?.hasEdns === true;
  const size = questionEnd + records.bytes.length + (hasEdns ? EDNS_RECORD.length : 0);
  const answer = Buffer.allocUnsafe(size);
  query.copy(answer, 0, 0, questionEnd);
  const kept = query.readUInt16BE(2) & (OPCODE_MASK | FLAG_RECURSION_DESIRED);
  answer.writeUInt16BE(FLAG_RESPONSE | kept | FLAG_RECURSION_AVAILABLE | (isCut ? FLAG_TRUNCATED : 0) | code, 2);
  answer.writeUInt16BE(question === undefined ? 0 : 1, 4);
  answer.writeUInt16BE(records.count, 6);
  answer.writeUInt16BE(0, 8);
  answer.writeUInt16BE(hasEdns ? 1 : 0, 10);
  records.bytes.copy(answer, questionEnd);
  if (hasEdns) EDNS_RECORD.copy(answer, size - EDNS_RECORD.length);
  return answer;
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
