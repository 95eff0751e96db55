import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import type { Socket } from 'node:dgram';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import { RECURSION_DESIRED, decode, encode } from 'dns-packet';
import type { DecodedPacket, OptAnswer } from 'dns-packet';
import { NamespaceSwitch, bindSocket } from '@flotilla/netlink';
import type { Where } from './probe.js';

const run = promisify(execFile);
const codec = createRequire(import.meta.url).resolve('dns-packet');

/** What a name server said: the code, then the data of the records. */
export interface DnsAnswer {
  code: string;
  data: string[];
  isCut: boolean;
  size: number;
}

const namespaces = new NamespaceSwitch();

/** Ask 127.0.0.11 of a namespace for IPv4 addresses. */
export async function askDns(where: Where, name: string, { transport = 'udp', udpSize = 0 } = {}): Promise<DnsAnswer> {
  const query = encode({
    ...{ type: 'query', id: 5, flags: RECURSION_DESIRED, questions: [{ name, type: 'A' }] },
    additionals: udpSize === 0 ? [] : [edns(udpSize)],
  });
  const bytes = await (transport === 'udp' ? askUdp(where, query) : askTcp(where, query));
  const answer = decode(bytes) as DecodedPacket & { rcode: string };
  const data = (answer.answers ?? []).map((record) =>
    record.type === 'A' || record.type === 'PTR' ? record.data : '',
  );
  return { code: answer.rcode, data, isCut: answer.flag_tc, size: bytes.length };
}

function edns(udpPayloadSize: number): OptAnswer {
  return {
    ...{ type: 'OPT', name: '.', udpPayloadSize, extendedRcode: 0, ednsVersion: 0 },
    ...{ flags: 0, flag_do: false, options: [] },
  };
}

/** Ask for all of these names at once from one UDP socket. @returns the addresses, by the place of their question. */
export async function askAllAtOnce(where: Where, names: readonly string[]): Promise<string[][]> {
  const socket = udpSocketIn(where);
  const answers = new Map<number, string[]>();
  try {
    const all = new Promise<void>((resolve) => {
      socket.on('message', (bytes) => {
        const { id, answers: records } = decode(bytes);
        answers.set(
          id ?? -1,
          (records ?? []).flatMap((record) => (record.type === 'A' ? [record.data] : [])),
        );
        if (answers.size === names.length) resolve();
      });
    });
    for (const [id, name] of names.entries()) {
      const query = encode({ type: 'query', id, flags: RECURSION_DESIRED, questions: [{ name, type: 'A' }] });
      socket.send(query, 53, '127.0.0.11');
    }
    await all;
  } finally {
    socket.close();
  }
  return names.map((_, id) => answers.get(id) ?? []);
}

function udpSocketIn(where: Where): Socket {
  const namespace = openSync(where, 'r');
  const { fd } = namespaces.inNamespace(namespace, () => bindSocket('udp', '0.0.0.0', 0));
  closeSync(namespace);
  const socket = createSocket('udp4');
  socket.bind({ fd });
  return socket;
}

async function askUdp(where: Where, query: Buffer): Promise<Buffer> {
  const socket = udpSocketIn(where);
  try {
    socket.send(query, 53, '127.0.0.11');
    const [bytes] = (await once(socket, 'message', { signal: AbortSignal.timeout(15_000) })) as [Buffer];
    return bytes;
  } finally {
    socket.close();
  }
}

const askTcpScript = `
const [hex] = process.argv.slice(1);
const query = Buffer.from(hex, 'hex');
let all = Buffer.alloc(0);
const s = require('net').connect(53, '127.0.0.11', () => s.write(Buffer.concat([Buffer.from([0, query.length]), query])));
s.on('data', (d) => { all = Buffer.concat([all, d]); if (all.length >= 2 && all.length >= 2 + all.readUInt16BE(0)) { process.stdout.write(all.toString('hex', 2)); s.destroy(); } });
`;

async function askTcp(where: Where, query: Buffer): Promise<Buffer> {
  const args = [`--net=${where}`, '--', process.execPath, '-e', askTcpScript, query.toString('hex')];
  const { stdout } = await run('nsenter', args, { timeout: 15_000 });
  return Buffer.from(stdout, 'hex');
}

const serverScript = `
const [codec, ...servers] = process.argv.slice(1);
const packet = require(codec);
const reply = (bytes, own, transport) => {
  const { id, questions } = packet.decode(bytes);
  const [{ name, type }] = questions;
  const records = (count) => Array.from({ length: count }, (_, index) => ({ name, type: 'A', ttl: 9, data: index === 0 ? own : '198.51.100.' + index }));
  if (name.startsWith('hang')) return undefined;
  const code = name.startsWith('absent') ? 3 : name.startsWith('broken') ? 2 : 0;
  const isCut = name.startsWith('big') && transport === 'udp';
  const answers = code !== 0 || isCut ? [] : records(name.startsWith('big') ? 60 : 1);
  return packet.encode({ type: 'response', id, flags: code | (isCut ? packet.TRUNCATED_RESPONSE : 0), questions, answers });
};
let waiting = servers.length * 2;
const ready = () => { if (--waiting === 0) console.log('ready'); };
for (const own of servers) {
  const u = require('dgram').createSocket('udp4');
  u.on('message', (m, r) => { const a = reply(m, own, 'udp'); if (a) u.send(a, r.port, r.address); });
  u.bind(53, own, ready);
  require('net').createServer((s) => s.on('error', () => {}).on('data', (d) => { const a = reply(d.subarray(2), own, 'tcp'); if (a) s.end(Buffer.concat([Buffer.from([a.length >> 8, a.length & 255]), a])); })).listen(53, own, ready);
}
`;

/**
 * Name servers on these addresses, over UDP and TCP. What they say depends on how the name begins: hang (nothing), absent
 * (NXDOMAIN), broken (SERVFAIL), big (60 addresses, cut over UDP); everything else has the server's own address.
 */
export async function nameServers(where: Where, ...addresses: string[]): Promise<ChildProcess> {
  const child = spawn('nsenter', [`--net=${where}`, '--', process.execPath, '-e', serverScript, codec, ...addresses], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

// Perl is what every Debian has that can open a raw socket.
const sourcelessScript = `
use Socket;
my ($query, $port) = (pack('H*', $ARGV[0]), $ARGV[1]);
socket(my $s, AF_INET, SOCK_RAW, 17) or die $!;
send($s, pack('nnnn', 0, $port, 8 + length $query, 0) . $query, 0, sockaddr_in(0, inet_aton('127.0.0.11'))) or die $! for 1 .. 40;
`;

/** Send queries from source port 0 to the name server of a namespace: answers cannot be sent. */
export async function askFromPortZero(where: Where, name: string): Promise<void> {
  const inside = (command: string, args: readonly string[]) =>
    run('nsenter', [`--net=${where}`, '--', command, ...args]);
  const { stdout } = await inside('cat', ['/proc/net/udp']);
  const port = /: 0B00007F:([0-9A-F]{4}) /.exec(stdout)?.[1] ?? '';
  const query = encode({ type: 'query', id: 5, questions: [{ name, type: 'A' }] });
  await inside('perl', ['-e', sourcelessScript, query.toString('hex'), String(parseInt(port, 16))]);
}

const hostileScript = `
const [codec, rounds] = process.argv.slice(1);
const packet = require(codec);
const { randomBytes, randomInt } = require('crypto');
const net = require('net');
const one = packet.encode({ type: 'query', id: 5, questions: [{ name: 'web', type: 'A' }] });
const header = (questions, flags = 0x0100) => Buffer.from([0, 9, flags >> 8, flags & 255, 0, questions, 0, 0, 0, 0, 0, 0]);
const crafted = [
  Buffer.alloc(0), Buffer.from([1]), header(0), header(1), header(255), header(1, 0x8180), header(1, 0x2800),
  Buffer.concat([header(1), Buffer.from([0xc0, 12, 0, 1, 0, 1])]),
  Buffer.concat([header(1), Buffer.from([1, 97, 0xc0, 12, 0, 1, 0, 1])]),
  Buffer.concat([header(1), Buffer.from([63]), Buffer.alloc(20, 97)]),
  Buffer.concat([header(1), ...Array.from({ length: 200 }, () => Buffer.from([1, 97])), Buffer.from([0, 0, 1, 0, 1])]),
  Buffer.concat([header(50), ...Array.from({ length: 50 }, () => one.subarray(12))]),
  Buffer.concat([one, randomBytes(60000)]), randomBytes(65000),
];
const mutated = () => { const bytes = Buffer.from(one); for (let i = 0; i < 3; i++) bytes[randomInt(bytes.length)] = randomInt(256); return bytes.subarray(0, randomInt(bytes.length + 1)); };
const u = require('dgram').createSocket('udp4');
u.bind(0, async () => {
  for (let round = 0; round < Number(rounds); round++) {
    for (const bytes of [...crafted, ...Array.from({ length: 50 }, mutated)]) await new Promise((sent) => u.send(bytes, 53, '127.0.0.11', sent));
  }
  let refused = 0;
  const sockets = Array.from({ length: 150 }, () => net.connect(53, '127.0.0.11'));
  for (const s of sockets) { s.on('error', () => {}); s.on('close', () => refused++); s.write(Buffer.from([0xff, 0xff, 0])); }
  const until = Date.now() + 10000;
  while (refused < 80 && Date.now() < until) await new Promise((r) => setTimeout(r, 10));
  process.stdout.write(JSON.stringify({ open: sockets.length - refused }) + '\\n');
  setInterval(() => {}, 1000); // until killed
});
`;

/** A process that attacks 127.0.0.11 and then holds what connections it got; tells how many those are. */
export async function hostileClient(where: Where, rounds: number): Promise<{ child: ChildProcess; open: number }> {
  const args = [`--net=${where}`, '--', process.execPath, '-e', hostileScript, codec, String(rounds)];
  const child = spawn('nsenter', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const [data] = (await once(child.stdout, 'data')) as [Buffer];
  return { child, open: (JSON.parse(data.toString()) as { open: number }).open };
}
