import { addressOf, bind } from '@flotilla/sys';
import type { Call } from '@flotilla/sys';

/** Where a datagram came from. */
export interface DatagramSource {
  /** IPv4. */
  address: string;
  port: number;
}

const receiveCall: Call<[number, Uint8Array, number, number, null]> = bind(
  'int recvmmsg(int fd, void *messages, unsigned int count, int flags, void *timeout)',
);
const sendCall: Call<[number, Uint8Array, number, number]> = bind(
  'int sendmmsg(int fd, void *messages, unsigned int count, int flags)',
);

const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
// struct mmsghdr on 64-bit Linux: a msghdr { name, namelen, iov, iovlen, control, controllen, flags } and the length.
const HEADER_SIZE = 64;
const NAME_SIZE_AT = 8;
const VECTOR_AT = 16;
const VECTOR_COUNT_AT = 24;
const FLAGS_AT = 48;
const LENGTH_AT = 56;
// struct iovec: address, length.
const VECTOR_SIZE = 16;
// struct sockaddr_in: family, port, address.
const NAME_SIZE = 16;

/**
 * Datagrams of IPv4 sockets, read and answered many at a time: two system calls for up to `count` of them, where Node's
 * `dgram` makes two and several objects for each. Node still tells when a socket has something (its own `message` event);
 * this takes what else is there. One object serves any number of sockets: nothing stays in it between calls.
 */
export class DatagramBatch {
  readonly #count: number;
  readonly #size: number;
  // The kernel reads addresses out of these: Buffers of this size never move, and all of them live as long as this object.
  readonly #names: Buffer;
  readonly #namesAt: bigint;
  readonly #received: MessageHeaders;
  readonly #answers: MessageHeaders;

  /** @param size largest datagram taken or sent, in bytes; longer ones are dropped, as by a full queue. */
  constructor(count: number, size: number) {
    this.#count = count;
    this.#size = size;
    this.#names = Buffer.alloc(count * NAME_SIZE);
    this.#namesAt = addressOf(this.#names);
    this.#received = messageHeaders(count, size, this.#namesAt);
    this.#answers = messageHeaders(count, size, this.#namesAt);
  }

  /**
   * Take what is waiting on a socket, at most `count`, and send back what `answer` returns (undefined: nothing, or later).
   * The datagram that `answer` gets is a copy of its own. What the kernel has no room to send is dropped.
   */
  exchange(fd: number, answer: (datagram: Buffer, source: DatagramSource) => Buffer | undefined): void {
    const received = receiveCall(fd, this.#received.headers, this.#count, MSG_DONTWAIT, null);
    let ready = 0;
    for (let index = 0; index < received; index++) {
      const header = index * HEADER_SIZE;
      const length = this.#received.headers.readUInt32LE(header + LENGTH_AT);
      const flags = this.#received.headers.readUInt32LE(header + FLAGS_AT);
      this.#received.headers.writeUInt32LE(NAME_SIZE, header + NAME_SIZE_AT);
      if ((flags & MSG_TRUNC) !== 0) continue;
      const start = index * this.#size;
      const message = answer(Buffer.from(this.#received.data.subarray(start, start + length)), this.#source(index));
      if (message === undefined || message.length > this.#size) continue;
      this.#answers.data.set(message, ready * this.#size);
      this.#answers.vectors.writeUInt32LE(message.length, ready * VECTOR_SIZE + 8);
      this.#answers.headers.writeBigUInt64LE(this.#namesAt + BigInt(index * NAME_SIZE), ready * HEADER_SIZE);
      ready += 1;
    }
    // An error concerns the first that was not sent; the others go out all the same.
    for (let sent = 0; sent < ready;) {
      const count = sendCall(fd, this.#answers.headers.subarray(sent * HEADER_SIZE), ready - sent, MSG_DONTWAIT);
      sent += Math.max(count, 1);
    }
  }

  #source(index: number): DatagramSource {
    const [a, b, c, d] = this.#names.subarray(index * NAME_SIZE + 4, index * NAME_SIZE + 8);
    return { address: `${a}.${b}.${c}.${d}`, port: this.#names.readUInt16BE(index * NAME_SIZE + 2) };
  }
}

interface MessageHeaders {
  headers: Buffer;
  vectors: Buffer;
  data: Buffer;
}

/** Arguments of recvmmsg and sendmmsg, each header with one vector into `data` and one name behind `namesAt`. */
function messageHeaders(count: number, size: number, namesAt: bigint): MessageHeaders {
  const headers = Buffer.alloc(count * HEADER_SIZE);
  const vectors = Buffer.alloc(count * VECTOR_SIZE);
  const data = Buffer.alloc(count * size);
  const [vectorsAt, dataAt] = [addressOf(vectors), addressOf(data)];
  for (let index = 0; index < count; index++) {
    const header = index * HEADER_SIZE;
    headers.writeBigUInt64LE(namesAt + BigInt(index * NAME_SIZE), header);
    headers.writeUInt32LE(NAME_SIZE, header + NAME_SIZE_AT);
    headers.writeBigUInt64LE(vectorsAt + BigInt(index * VECTOR_SIZE), header + VECTOR_AT);
    headers.writeBigUInt64LE(1n, header + VECTOR_COUNT_AT);
    vectors.writeBigUInt64LE(dataAt + BigInt(index * size), index * VECTOR_SIZE);
    vectors.writeUInt32LE(size, index * VECTOR_SIZE + 8);
  }
  return { headers, vectors, data };
}
