import { createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { answersJetStream } from './jetstream-check.js';

const open: (() => void)[] = [];
afterEach(() => {
  for (const close of open.splice(0)) close();
});

/** A server that greets as nats-server does and answers what it is sent by `answer`. */
async function startServer(answer: (socket: Socket, text: string) => void): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.write('INFO {"server_id":"x"} \r\n');
    socket.on('data', (data) => answer(socket, data.toString()));
    open.push(() => socket.destroy());
  });
  open.push(() => server.close());
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `nats://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
const message = (text: string) => `MSG _INBOX.launcher 1 ${text.length}\r\n${text}\r\n`;
const credentials = { user: 'u', pass: 'p' };

it('is true when JetStream tells of itself', async () => {
  let sent = '';
  const url = await startServer((socket, text) => {
    sent += text;
    if (sent.includes('$JS.API.INFO'))
      socket.write(message('{"type":"io.nats.jetstream.api.v1.account_info_response"}'));
  });
  expect(await answersJetStream({ url, ...credentials })).toBe(true);
  expect(sent).toContain('"user":"u","pass":"p"');
});

it.each([
  ['JetStream is not enabled', (socket: Socket) => socket.write(message('{"error":{"code":503}}'))],
  ['the credentials are wrong', (socket: Socket) => socket.write("-ERR 'Authorization Violation'\r\n")],
  ['the connection ends', (socket: Socket) => socket.end()],
  ['nobody answers', () => undefined],
])('is false when %s', async (_what, answer) => {
  const url = await startServer(answer);
  expect(await answersJetStream({ url, ...credentials })).toBe(false);
});

it('is false when nobody listens', async () => {
  expect(await answersJetStream({ url: 'nats://127.0.0.1:1', ...credentials })).toBe(false);
});
