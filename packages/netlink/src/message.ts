export const NLM_F_REQUEST = 0x1;
export const NLM_F_ACK = 0x4;
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
export const NLM_F_DUMP = 0x300;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

/** Size of struct nlmsghdr. */
export const MESSAGE_HEADER_SIZE = 16;

/** A message as received: header fields and what follows the header. */
export interface Message {
  type: number;
  flags: number;
  sequence: number;
  body: Buffer;
}

/** One netlink message; the socket fills in the sequence number when it sends. */
export function encodeMessage(type: number, flags: number, ...body: Uint8Array[]): Buffer {
  const size = MESSAGE_HEADER_SIZE + body.reduce((sum, part) => sum + part.length, 0);
  const bytes = Buffer.alloc((size + 3) & ~3);
  bytes.writeUInt32LE(size, 0);
  bytes.writeUInt16LE(type, 4);
  bytes.writeUInt16LE(NLM_F_REQUEST | flags, 6);
  let offset = MESSAGE_HEADER_SIZE;
  for (const part of body) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

export function stampSequence(message: Buffer, sequence: number): void {
  message.writeUInt32LE(sequence, 8);
}

export function wantsAck(message: Buffer): boolean {
  return (message.readUInt16LE(6) & NLM_F_ACK) !== 0;
}

/** The messages of one received datagram. Bodies are views: copy what outlives the next receive. */
export function* decodeMessages(datagram: Buffer): Generator<Message> {
  let offset = 0;
  while (offset + MESSAGE_HEADER_SIZE <= datagram.length) {
    const length = datagram.readUInt32LE(offset);
    if (length < MESSAGE_HEADER_SIZE || offset + length > datagram.length) return;
    yield {
      type: datagram.readUInt16LE(offset + 4),
      flags: datagram.readUInt16LE(offset + 6),
      sequence: datagram.readUInt32LE(offset + 8),
      body: datagram.subarray(offset + MESSAGE_HEADER_SIZE, offset + length),
    };
    offset += (length + 3) & ~3;
  }
}
