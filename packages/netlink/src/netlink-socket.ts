import { decodeAttributes, readText } from './attributes.js';
import {
  MESSAGE_HEADER_SIZE,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP_INTR,
  decodeMessages,
  stampSequence,
  wantsAck,
} from './message.js';
import type { Message } from './message.js';
import { NetlinkError } from './netlink-error.js';
import { AF_NETLINK, SOCK_RAW, SOL_SOCKET, socketCalls } from './socket-calls.js';

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_RCVTIMEO_SECONDS = 30;
const SO_RCVTIMEO = 20;
const NLMSGERR_ATTR_MSG = 1;
const RECEIVE_SIZE = 256 * 1024;
const MAX_DUMP_TRIES = 5;

/**
 * A synchronous netlink socket in the network namespace of the thread that makes it; it stays there.
 *
 * The kernel handles requests inside `send`, so that a request is a few microseconds long and never waits for anyone
 * but the kernel's own locks. Use it on a worker thread where those may be slow (deleting links).
 */
export class NetlinkSocket {
  readonly #fd: number;
  readonly #receiveBuffer = Buffer.alloc(RECEIVE_SIZE);
  #sequence = 1;
  #closed = false;

  /** @param protocol `NETLINK_ROUTE` or `NETLINK_NETFILTER` */
  constructor(protocol: number) {
    this.#fd = socketCalls.socket(AF_NETLINK, SOCK_RAW, protocol);
    try {
      const address = Buffer.alloc(12);
      address.writeUInt16LE(AF_NETLINK, 0);
      socketCalls.bind(this.#fd, address);
      socketCalls.setOption(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
      socketCalls.setOption(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
      socketCalls.setOption(this.#fd, SOL_SOCKET, SO_SNDBUFFORCE, 4 * 1024 * 1024);
      socketCalls.setOption(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, 4 * 1024 * 1024);
      // An answer that never comes must not hang the thread for ever.
      socketCalls.setTimeOption(this.#fd, SOL_SOCKET, SO_RCVTIMEO, SO_RCVTIMEO_SECONDS);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * Send messages in one datagram and wait for every acknowledgement that they ask for.
   *
   * The kernel works through all of them even when one fails (nfnetlink batches excepted: those are atomic); the first
   * refusal is thrown once all answers are in. Answers other than acknowledgements are returned.
   *
   * @throws NetlinkError with the index of the refused message and the kernel's own sentence, when it gave one
   */
  request(messages: readonly Buffer[], what: string): Message[] {
    const first = this.#sequence;
    let pending = 0;
    for (const message of messages) {
      stampSequence(message, this.#sequence++);
      if (wantsAck(message)) pending++;
    }
    const lastSequence = this.#sequence - 1;
    socketCalls.send(
      this.#fd,
      messages.length === 1 && messages[0] !== undefined ? messages[0] : Buffer.concat(messages),
    );
    const answers: Message[] = [];
    let failure: NetlinkError | undefined;
    while (pending > 0) {
      for (const message of this.#receive()) {
        if (message.sequence < first || message.sequence > lastSequence) continue; // left over from a request that failed
        if (message.type !== NLMSG_ERROR) {
          answers.push({ ...message, body: Buffer.from(message.body) });
          continue;
        }
        pending--;
        const errno = -message.body.readInt32LE(0);
        if (errno === 0) continue;
        // A batch that is refused as a whole is acknowledged at its first message only.
        if (failure === undefined) {
          failure = new NetlinkError(what, errno, message.sequence - first, extendedAck(message));
        }
        if (message.sequence === first && messages.length > 1 && !wantsAckAt(messages, 0)) pending = 0;
      }
    }
    if (failure !== undefined) throw failure;
    return answers;
  }

  /** All objects that a dump request answers with. A dump that changed while it was read is read again. */
  dump(message: Buffer, what: string): Buffer[] {
    for (let attempt = 1; ; attempt++) {
      const sequence = this.#sequence++;
      stampSequence(message, sequence);
      socketCalls.send(this.#fd, message);
      const { objects, interrupted } = this.#readDump(sequence, what);
      if (!interrupted || attempt === MAX_DUMP_TRIES) return objects;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    socketCalls.close(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #readDump(sequence: number, what: string): { objects: Buffer[]; interrupted: boolean } {
    const objects: Buffer[] = [];
    let interrupted = false;
    for (;;) {
      for (const message of this.#receive()) {
        if (message.sequence !== sequence) continue;
        if ((message.flags & NLM_F_DUMP_INTR) !== 0) interrupted = true;
        if (message.type === NLMSG_DONE) return { objects, interrupted };
        if (message.type === NLMSG_ERROR) {
          const errno = -message.body.readInt32LE(0);
          if (errno !== 0) throw new NetlinkError(what, errno);
          return { objects, interrupted };
        }
        objects.push(Buffer.from(message.body));
      }
    }
  }

  #receive(): Generator<Message> {
    const size = socketCalls.recv(this.#fd, this.#receiveBuffer);
    return decodeMessages(this.#receiveBuffer.subarray(0, size));
  }
}

function wantsAckAt(messages: readonly Buffer[], index: number): boolean {
  const message = messages[index];
  return message !== undefined && wantsAck(message);
}

/** The kernel's own sentence in an error message (NLMSGERR_ATTR_MSG); empty when it gave none. */
function extendedAck(message: Message): string {
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return '';
  const capped = (message.flags & NLM_F_CAPPED) !== 0;
  const start = capped ? 4 + MESSAGE_HEADER_SIZE : 4 + message.body.readUInt32LE(4);
  return readText(decodeAttributes(message.body, start).get(NLMSGERR_ATTR_MSG)) ?? '';
}
