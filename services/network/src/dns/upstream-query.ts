import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, isIPv6 } from 'node:net';
import { isAnswerTo } from './dns-message.js';
import type { Question } from './dns-message.js';

/** A query for one other name server. */
export interface UpstreamQuery {
  query: Buffer;
  question: Question;
  server: string;
  port: number;
  transport: 'udp' | 'tcp';
}

/**
 * Ask one name server, once.
 *
 * @param done called at most once and never before this returns: with the answer, under the query's own id, or undefined
 * when the server cannot be reached. A server that is silent is not given up here.
 * @returns what ends it; `done` is not called then
 */
export function askServer(upstream: UpstreamQuery, done: (answer: Buffer | undefined) => void): () => void {
  return upstream.transport === 'udp' ? askUdp(upstream, done) : askTcp(upstream, done);
}

/** From a port and with an id of its own per query, so that answers cannot be guessed from outside. */
function askUdp({ query, question, server, port }: UpstreamQuery, done: (answer: Buffer | undefined) => void) {
  const socket = createSocket(isIPv6(server) ? 'udp6' : 'udp4');
  const id = randomInt(0x10000);
  let isOpen = true;
  const cancel = (): void => {
    if (!isOpen) return;
    isOpen = false;
    socket.close();
  };
  const finish = (answer: Buffer | undefined): void => {
    if (!isOpen) return;
    cancel();
    done(answer);
  };
  socket.on('error', () => finish(undefined));
  socket.on('message', (message) => {
    if (message.length < 2 || message.readUInt16BE(0) !== id || !isAnswerTo(query, question, message)) return;
    message.writeUInt16BE(query.readUInt16BE(0), 0);
    finish(message);
  });
  const asked = Buffer.from(query);
  asked.writeUInt16BE(id, 0);
  const failed = (error?: Error | null): void => {
    if (error) finish(undefined);
  };
  socket.connect(port, server, (error?: Error) => {
    failed(error);
    if (isOpen) socket.send(asked, failed);
  });
  return cancel;
}

function askTcp({ query, question, server, port }: UpstreamQuery, done: (answer: Buffer | undefined) => void) {
  const socket = connect({ host: server, port });
  let received = Buffer.alloc(0);
  let isOpen = true;
  const cancel = (): void => {
    isOpen = false;
    socket.destroy();
  };
  const finish = (answer: Buffer | undefined): void => {
    if (!isOpen) return;
    cancel();
    done(answer);
  };
  socket.on('error', () => finish(undefined));
  socket.on('close', () => finish(undefined));
  socket.on('connect', () => socket.write(framed(query)));
  socket.on('data', (data) => {
    received = Buffer.concat([received, data]);
    if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
    const message = received.subarray(2, 2 + received.readUInt16BE(0));
    const isOurs =
      message.length >= 2 && message.readUInt16BE(0) === query.readUInt16BE(0) && isAnswerTo(query, question, message);
    finish(isOurs ? message : undefined);
  });
  return cancel;
}

/** A message as TCP carries it: two bytes of length in front. */
export function framed(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}
