import { createSocket } from 'node:dgram';
import type { Socket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, describe, expect, it } from 'vitest';
import { DatagramBatch } from './datagram-batch.js';
import { bindSocket, closeDescriptor } from './inet-sockets.js';

const clients: Socket[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

/** A client that has sent its datagrams to `port`, and what comes back. */
async function client(port: number, datagrams: readonly string[]): Promise<{ socket: Socket; answers: string[] }> {
  const socket = createSocket('udp4');
  clients.push(socket);
  const answers: string[] = [];
  socket.on('message', (message) => answers.push(message.toString()));
  for (const datagram of datagrams) {
    await new Promise((resolve) => socket.send(datagram, port, '127.0.0.1', resolve));
  }
  return { socket, answers };
}

describe('DatagramBatch', () => {
  it('answers each datagram to its sender, across batches and whatever was not answered before it', async () => {
    const { fd, port } = bindSocket('udp', '127.0.0.1', 0);
    const batch = new DatagramBatch(4, 64);
    const one = await client(port, ['a1', 'skip', 'a2', 'a3']);
    const other = await client(port, ['b1', 'b2']);
    const sources = new Set<number>();
    const echo = (datagram: Buffer, source: { address: string; port: number }): Buffer | undefined => {
      expect(source.address).toBe('127.0.0.1');
      sources.add(source.port);
      return datagram.toString() === 'skip' ? undefined : Buffer.from(`${datagram.toString()}!`);
    };
    batch.exchange(fd, echo);
    batch.exchange(fd, echo);
    batch.exchange(fd, () => expect.unreachable('nothing is left'));
    await expect.poll(() => one.answers).toEqual(['a1!', 'a2!', 'a3!']);
    await expect.poll(() => other.answers).toEqual(['b1!', 'b2!']);
    expect(sources).toEqual(new Set([one.socket.address().port, other.socket.address().port]));
    closeDescriptor(fd);
  });

  it('drops what is too long, either way, and takes datagrams without a byte', async () => {
    const { fd, port } = bindSocket('udp', '127.0.0.1', 0);
    const batch = new DatagramBatch(8, 16);
    const { answers } = await client(port, ['x'.repeat(17), 'x'.repeat(16), '', 'long answer', 'last']);
    const seen: string[] = [];
    batch.exchange(fd, (datagram) => {
      seen.push(datagram.toString());
      return Buffer.from(datagram.toString() === 'long answer' ? 'y'.repeat(17) : `${datagram.length}`);
    });
    expect(seen).toEqual(['x'.repeat(16), '', 'long answer', 'last']);
    await expect.poll(() => answers).toEqual(['16', '0', '4']);
    closeDescriptor(fd);
  });

  it('goes on with the others when one cannot be sent', async () => {
    const { fd, port } = bindSocket('udp', '127.0.0.1', 0);
    const gone = await client(port, ['gone']);
    const closed = once(gone.socket, 'close');
    clients.splice(0);
    gone.socket.close();
    await closed;
    const { answers } = await client(port, ['there', 'and there']);
    const batch = new DatagramBatch(8, 64);
    for (let turn = 0; turn < 3; turn++) batch.exchange(fd, (datagram) => datagram);
    await expect.poll(() => answers).toEqual(['there', 'and there']);
    closeDescriptor(fd);
  });
});
