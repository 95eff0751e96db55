import { connect } from 'node:net';
import type { NatsSettings } from '@flotilla/config';

const limitMs = 2000;
const maxAnswerBytes = 64 * 1024;
const inbox = '_INBOX.launcher';

/**
 * Whether the JetStream of a nats-server answers. Its port alone tells little: after a full disk nats-server 2.9 goes on
 * accepting connections while JetStream answers nobody any more, until it is started anew.
 *
 * Three lines of NATS's text protocol: the launcher does without the client library.
 */
export function answersJetStream({ url, user, pass }: NatsSettings): Promise<boolean> {
  const { hostname, port } = new URL(url);
  const options = { verbose: false, pedantic: false, name: 'launcher', ...(user === undefined ? {} : { user, pass }) };
  return new Promise((resolve) => {
    const socket = connect({ host: hostname, port: Number(port) });
    let received = '';
    const end = (answer: boolean) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => end(false), limitMs);
    socket.setEncoding('latin1');
    socket.once('connect', () => {
      socket.write(`CONNECT ${JSON.stringify(options)}\r\nSUB ${inbox} 1\r\nPUB $JS.API.INFO ${inbox} 0\r\n\r\n`);
    });
    socket.on('data', (text: string) => {
      received += text;
      const answer = /\r\nMSG _INBOX\.launcher 1 \d+\r\n(.*)\r\n/.exec(received)?.[1];
      if (answer !== undefined) end(!answer.includes('"error"'));
      else if (received.includes('\r\n-ERR') || received.length > maxAnswerBytes) end(false);
    });
    socket.once('error', () => end(false));
    socket.once('close', () => end(false));
  });
}
