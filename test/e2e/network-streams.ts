import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';

const codec = createRequire(import.meta.url).resolve('dns-packet');

/** A process in a network namespace that tells how it fares. */
export interface Traffic<T> {
  /** What it has seen so far. */
  report(): Promise<T>;
  end(): Promise<void>;
}

const echoScript = `require('net').createServer((s) => s.on('error', () => {}).pipe(s)).listen(80, '0.0.0.0', () => console.log('ready'));`;

/** A server on port 80 that sends back what it gets. */
export async function startEcho(where: string): Promise<ChildProcess> {
  const child = inside(where, echoScript, []);
  await once(child.stdout, 'data');
  return child;
}

/** What one TCP connection has carried: numbered lines there and back, and why it ended, if it did. */
export interface StreamReport {
  echoed: number;
  broken: string;
}

const streamScript = `
const [address, port] = process.argv.slice(1);
let echoed = 0, broken = '', rest = '';
const s = require('net').connect(Number(port), address, () => { console.log('ready'); s.write('0\\n'); });
s.on('data', (d) => {
  const lines = (rest + d).split('\\n');
  rest = lines.pop();
  for (const line of lines) { if (Number(line) !== echoed) broken = 'got ' + line + ' for ' + echoed; echoed++; setTimeout(() => s.write(echoed + '\\n'), 2); }
});
s.on('error', (e) => (broken ||= e.code)).on('close', () => (broken ||= 'closed'));
process.stdin.on('data', () => console.log(JSON.stringify({ echoed, broken })));`;

/** One TCP connection that carries something all the time. */
export function startStream(where: string, address: string, port: number): Promise<Traffic<StreamReport>> {
  return traffic(inside(where, streamScript, [address, String(port)]));
}

/** What became of DNS queries, one after the other without a pause. */
export interface QueriesReport {
  answered: number;
  /** Longest time between two answers since the last report, in milliseconds. */
  longestGapMs: number;
  /** Answers that were not the expected one. */
  wrong: string[];
}

const queriesScript = `
const [codec, name, expected] = process.argv.slice(1);
const packet = require(codec);
let answered = 0, longestGapMs = 0, wrong = [], id = 0, last = performance.now(), timer;
const u = require('dgram').createSocket('udp4');
const ask = () => { clearTimeout(timer); id = (id + 1) & 0xffff; timer = setTimeout(ask, 20); u.send(packet.encode({ type: 'query', id, questions: [{ name, type: 'A' }] }), () => {}); };
u.on('error', () => {}); // refused while nobody listens
u.on('message', (m) => {
  const answer = packet.decode(m);
  if (answer.id !== id) return;
  const said = answer.rcode + ' ' + answer.answers.map((record) => record.data);
  if (said !== 'NOERROR ' + expected) wrong.push(said);
  longestGapMs = Math.max(longestGapMs, performance.now() - last);
  last = performance.now();
  if (++answered === 1) console.log('ready');
  clearTimeout(timer);
  timer = setTimeout(ask, 1);
});
u.connect(53, '127.0.0.11', ask);
process.stdin.on('data', () => { console.log(JSON.stringify({ answered, longestGapMs, wrong })); longestGapMs = 0; });`;

/** DNS queries for a name that has one address. */
export function startQueries(where: string, name: string, address: string): Promise<Traffic<QueriesReport>> {
  return traffic(inside(where, queriesScript, [codec, name, address]));
}

type Child = ReturnType<typeof inside>;

function inside(where: string, script: string, args: readonly string[]) {
  return spawn('nsenter', [`--net=${where}`, process.execPath, '-e', script, ...args], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

async function traffic<T>(child: Child): Promise<Traffic<T>> {
  await once(child.stdout, 'data');
  return {
    async report() {
      const line = once(child.stdout, 'data');
      child.stdin.write('?');
      return JSON.parse(String((await line)[0])) as T;
    },
    async end() {
      const ended = once(child, 'exit');
      child.kill();
      await ended;
    },
  };
}
