import { execFile, execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';

/** A namespace as nsenter finds it: a file. */
export type Where = string;

const answerScript = `
const [kind, address, port, text] = process.argv.slice(1);
if (kind === 'tcp') require('net').createServer((s) => s.on('error', () => {}).end(text + ' ' + s.remoteAddress)).listen({ host: address, port: Number(port) }, () => console.log('ready'));
else { const u = require('dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4'); u.on('message', (m, r) => u.send(text + ' ' + r.address, r.port, r.address)); u.bind(Number(port), address, () => console.log('ready')); }
`;

const askScript = `
const [kind, address, port] = process.argv.slice(1);
const done = (text) => { process.stdout.write(text); process.exit(0); };
setTimeout(() => done('TIMEOUT'), Number(process.argv[4] ?? 1500));
if (kind === 'tcp') { let all = ''; const s = require('net').connect(Number(port), address); s.on('data', (d) => (all += d)).on('end', () => done(all)).on('error', (e) => done(e.code)); }
else { const u = require('dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4'); u.on('message', (m) => done(String(m))); u.on('error', (e) => done(e.code)); u.bind(Number(process.argv[5] ?? 0), () => u.send('?', Number(port), address)); }
`;

/** A server in a namespace that answers everything with \`text\` and the asker's address. */
export async function answering(
  where: Where,
  kind: 'tcp' | 'udp',
  address: string,
  port: number,
  text: string,
): Promise<ChildProcess> {
  const child = spawn(
    'nsenter',
    [`--net=${where}`, '--', process.execPath, '-e', answerScript, kind, address, String(port), text],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await once(child.stdout, 'data');
  return child;
}

/** What is answered at an address: the server's text, an error code, or TIMEOUT. */
export function ask(
  where: Where,
  kind: 'tcp' | 'udp',
  address: string,
  port: number,
  timeoutMs = 8000,
  sourcePort = 0,
): string {
  return execFileSync(
    'nsenter',
    [
      `--net=${where}`,
      '--',
      process.execPath,
      '-e',
      askScript,
      kind,
      address,
      String(port),
      String(timeoutMs),
      String(sourcePort),
    ],
    {
      encoding: 'utf8',
    },
  );
}

/** As {@link ask}, beside others. */
export async function asking(
  where: Where,
  kind: 'tcp' | 'udp',
  address: string,
  port: number,
  timeoutMs = 8000,
): Promise<string> {
  const script = [process.execPath, '-e', askScript, kind, address, String(port), String(timeoutMs)];
  return (await promisify(execFile)('nsenter', [`--net=${where}`, '--', ...script])).stdout;
}

const resolveScript = `
const { Resolver } = require('dns').promises;
const r = new Resolver({ timeout: 8000, tries: 1 });
r.setServers(['127.0.0.11']);
const [name, type] = process.argv.slice(1);
r.resolve(name, type).then((a) => process.stdout.write(JSON.stringify(a)), (e) => process.stdout.write(JSON.stringify(e.code)));
`;

/** Ask 127.0.0.11 of a namespace: addresses, or an error code as text. */
export function resolve(where: Where, name: string, type = 'A'): unknown {
  return JSON.parse(
    execFileSync('nsenter', [`--net=${where}`, '--', process.execPath, '-e', resolveScript, name, type], {
      encoding: 'utf8',
    }),
  );
}

const nameServerScript = `
const [address, answer] = process.argv.slice(1);
const reply = (q) => Buffer.concat([q.subarray(0, 2), Buffer.from([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]), q.subarray(12, q.indexOf(0, 12) + 5), Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, ...answer.split('.').map(Number)])]);
const u = require('dgram').createSocket('udp4');
u.on('message', (q, r) => u.send(reply(q), r.port, r.address));
u.bind(53, address, () => console.log('ready'));
`;

/** A name server on port 53 that answers every question with one address. */
export async function nameServer(where: Where, address: string, answer: string): Promise<ChildProcess> {
  const child = spawn('nsenter', [`--net=${where}`, '--', process.execPath, '-e', nameServerScript, address, answer], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

const rawScript = `
const [kind, hex] = process.argv.slice(1);
const done = (text) => { process.stdout.write(text); process.exit(0); };
setTimeout(() => done('TIMEOUT'), 500);
if (kind === 'udp') { const u = require('dgram').createSocket('udp4'); u.on('message', (m) => done(m.toString('hex'))); u.send(Buffer.from(hex, 'hex'), 53, '127.0.0.11'); }
else { const s = require('net').connect(53, '127.0.0.11'); s.on('data', (d) => done(d.toString('hex'))); s.on('error', (e) => done(e.code)); s.write(Buffer.from(hex, 'hex')); }
`;

/** Send bytes to 127.0.0.11 of a namespace: the answer in hex, or TIMEOUT. */
export function queryRaw(where: Where, kind: 'udp' | 'tcp', hex: string): string {
  return execFileSync('nsenter', [`--net=${where}`, '--', process.execPath, '-e', rawScript, kind, hex], {
    encoding: 'utf8',
  });
}
