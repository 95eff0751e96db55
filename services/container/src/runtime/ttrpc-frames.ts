/** Bytes of a ttrpc message's header: u32 length, u32 stream id, u8 type, u8 flags, big-endian. Source: containerd/ttrpc channel.go. */
const HEADER_BYTES = 10;

/** Longer messages are refused, as the Go implementation does. */
export const MAX_MESSAGE_BYTES = 4 << 20;

export const MessageType = { request: 1, response: 2 } as const;

/** One whole message in one buffer. */
export function encodeMessage(stream: number, type: number, body: Uint8Array): Buffer {
  const message = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  message.writeUInt32BE(body.length, 0);
  message.writeUInt32BE(stream, 4);
  message[8] = type;
  message[9] = 0;
  message.set(body, HEADER_BYTES);
  return message;
}

/** Cuts a byte stream into messages; keeps at most one incomplete message. */
export class MessageDecoder {
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #needed = HEADER_BYTES;

  /** @throws Error when a message is longer than `MAX_MESSAGE_BYTES`. */
  decode(chunk: Buffer, onMessage: (stream: number, type: number, body: Buffer) => void): void {
    this.#pending.push(chunk);
    this.#pendingBytes += chunk.length;
    if (this.#pendingBytes < this.#needed) return;
    const bytes = this.#pending.length === 1 ? chunk : Buffer.concat(this.#pending, this.#pendingBytes);
    let offset = 0;
    this.#needed = HEADER_BYTES;
    while (bytes.length - offset >= HEADER_BYTES) {
      const length = bytes.readUInt32BE(offset);
      if (length > MAX_MESSAGE_BYTES) throw new Error(`ttrpc: message of ${length} bytes is too long`);
      if (bytes.length - offset < HEADER_BYTES + length) {
        this.#needed = HEADER_BYTES + length;
        break;
      }
      const body = bytes.subarray(offset + HEADER_BYTES, offset + HEADER_BYTES + length);
      onMessage(bytes.readUInt32BE(offset + 4), bytes[offset + 8] ?? 0, body);
      offset += HEADER_BYTES + length;
    }
    const rest = bytes.subarray(offset);
    this.#pending = rest.length > 0 ? [rest] : [];
    this.#pendingBytes = rest.length;
  }
}
