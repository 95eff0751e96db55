import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { createNetworkNamespace, type NetworkNamespace } from '@flotilla/testkit';

/** Who asks. */
export const sources = [
  'the container itself',
  'neighbour, same network',
  'container of another network',
  'host, 127.0.0.1',
  'host, ::1',
  'host, its own address',
  'another machine',
] as const;
export type Source = (typeof sources)[number];

/** What is asked: the published port on an address of the host, or the container under its own address. */
export const targets = ['published port', 'container address, published', 'container address, unpublished'] as const;
export type Target = (typeof targets)[number];

export type Transport = 'tcp' | 'udp';

/**
 * What an asker met: an answer, and whose address the container saw (`own`: the asker's, `gateway`: that of its network's
 * bridge, `host`: the machine's outer one), or none. `-`: there is no such question.
 */
export type Outcome = 'own' | 'gateway' | 'host' | 'no' | '-';

/** One outcome for each question, under `source | target | transport`. */
export type Matrix = Map<string, Outcome>;

export const questionKey = (source: Source, target: Target, transport: Transport): string =>
  `${source} | ${target} | ${transport}`;

/** An engine whose ports are to be probed, and the namespace that is its machine. */
export interface ProbedEngine {
  host: NetworkNamespace;
  /** Run the docker CLI against it. @returns stdout; throws when it fails */
  docker: (...args: string[]) => Promise<string>;
}

interface Probe {
  key: string;
  transport: Transport;
  address: string;
  port: number;
  waitMs: number;
}

const hostAddress = '192.0.2.1';
const remoteAddress = '192.0.2.2';
const subnets = { front: '10.211.1', back: '10.211.2' } as const;
const published = { host: 8080, container: 80 };
const unpublished = 81;
/** An answer that is expected may take long on a busy machine; one that is not is not waited for so long. */
const patience = { answer: 15_000, silence: 1500 };

const serveScript = `
let waiting = 4;
const ready = () => { if (--waiting === 0) console.log('ready'); };
const plain = (address) => address.replace('::ffff:', '');
for (const port of [${published.container}, ${unpublished}]) {
  require('net').createServer((s) => s.on('error', () => {}).end(plain(s.remoteAddress))).listen(port, '0.0.0.0', ready);
  const u = require('dgram').createSocket('udp4');
  u.on('message', (m, from) => u.send(plain(from.address), from.port, from.address));
  u.bind(port, '0.0.0.0', ready);
}`;

const askScript = `
const probes = JSON.parse(process.argv[1]);
const asks = {
  tcp: ({ address, port }, done) => { let all = ''; const s = require('net').connect(port, address); s.on('data', (d) => (all += d)).on('end', () => done(all)).on('error', () => done('')); return () => s.destroy(); },
  udp: ({ address, port }, done) => { const u = require('dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4'); u.on('message', (m) => done(String(m))).on('error', () => done('')); const send = () => u.send('?', port, address, () => {}); const timer = setInterval(send, 200); send(); return () => { clearInterval(timer); u.close(); }; },
};
const ask = (probe) => new Promise((resolve) => {
  let end = () => {};
  const done = (seen) => { clearTimeout(timer); end(); done.once ??= resolve([probe.key, seen]); };
  const timer = setTimeout(() => done(''), probe.waitMs);
  end = asks[probe.transport](probe, done);
});
Promise.all(probes.map(ask)).then((answers) => { process.stdout.write(JSON.stringify(answers)); process.exit(); });`;

/**
 * Ask every question of an engine. Networks, containers and the other machine are made and removed here.
 *
 * @param isExpected whether a question should be answered; it only says how long to wait
 */
export async function probeMatrix(
  { host, docker }: ProbedEngine,
  isExpected: (key: string) => boolean,
): Promise<Matrix> {
  const remote = createNetworkNamespace();
  const children: ReturnType<typeof spawn>[] = [];
  try {
    connectMachines(host, remote);
    for (const [name, prefix] of Object.entries(subnets))
      await docker('network', 'create', '--subnet', `${prefix}.0/24`, name);
    const run = async (name: string, network: string, ...more: string[]): Promise<string> => {
      await docker('run', '-d', '--name', name, '--network', network, ...more, 'busybox', 'sleep', '600');
      return `/proc/${await docker('inspect', '-f', '{{.State.Pid}}', name)}/ns/net`;
    };
    const ports = ['tcp', 'udp'].flatMap((kind) => ['-p', `${published.host}:${published.container}/${kind}`]);
    const web = await run('web', 'front', ...ports);
    const neighbour = await run('neighbour', 'front');
    const other = await run('other', 'back');
    const address = await docker('inspect', '-f', '{{.NetworkSettings.Networks.front.IPAddress}}', 'web');
    const server = spawn('nsenter', [`--net=${web}`, process.execPath, '-e', serveScript], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(server);
    await once(server.stdout, 'data');

    const machine = `/run/netns/${host.name}`;
    const places: Record<Source, { where: string; published: string; own: RegExp }> = {
      'the container itself': { where: web, published: hostAddress, own: RegExp(`^${address}$|^127\\.`) },
      'neighbour, same network': { where: neighbour, published: hostAddress, own: /^10\.211\.1\.([2-9]|\d\d+)$/ },
      'container of another network': { where: other, published: hostAddress, own: /^10\.211\.2\.([2-9]|\d\d+)$/ },
      'host, 127.0.0.1': { where: machine, published: '127.0.0.1', own: /^127\./ },
      'host, ::1': { where: machine, published: '::1', own: /^::1$/ },
      'host, its own address': { where: machine, published: hostAddress, own: /^192\.0\.2\.1$/ },
      'another machine': { where: `/run/netns/${remote.name}`, published: hostAddress, own: /^192\.0\.2\.2$/ },
    };
    const matrix: Matrix = new Map();
    await Promise.all(
      sources.map(async (source) => {
        const place = places[source];
        const probes = targets.flatMap((target) =>
          (['tcp', 'udp'] as const).flatMap((transport): Probe[] => {
            const key = questionKey(source, target, transport);
            if (target !== 'published port' && place.published.endsWith('::1')) return []; // IPv4 containers
            return [{ key, transport, ...aim(target, place.published, address), waitMs: waitMs(isExpected(key)) }];
          }),
        );
        for (const [key, seen] of await askAll(place.where, probes)) matrix.set(key, outcome(seen, place.own));
        for (const key of keysOf(source)) if (!matrix.has(key)) matrix.set(key, '-');
      }),
    );
    return matrix;
  } finally {
    for (const child of children) child.kill();
    await docker('rm', '-f', 'web', 'neighbour', 'other').catch(() => undefined);
    await docker('network', 'rm', ...Object.keys(subnets)).catch(() => undefined);
    remote[Symbol.dispose]();
  }
}

const waitMs = (expected: boolean): number => (expected ? patience.answer : patience.silence);

function aim(target: Target, hostSide: string, address: string): { address: string; port: number } {
  switch (target) {
    case 'published port':
      return { address: hostSide, port: published.host };
    case 'container address, published':
      return { address, port: published.container };
    case 'container address, unpublished':
      return { address, port: unpublished };
  }
}

function keysOf(source: Source): string[] {
  return targets.flatMap((target) =>
    (['tcp', 'udp'] as const).map((transport) => questionKey(source, target, transport)),
  );
}

async function askAll(where: string, probes: readonly Probe[]): Promise<[string, string][]> {
  const { stdout } = await promisify(execFile)('nsenter', [
    `--net=${where}`,
    process.execPath,
    '-e',
    askScript,
    JSON.stringify(probes),
  ]);
  return JSON.parse(stdout) as [string, string][];
}

function outcome(seen: string, own: RegExp): Outcome {
  if (seen === '') return 'no';
  if (own.test(seen)) return 'own';
  if (/^10\.211\.\d\.1$/.test(seen)) return 'gateway';
  if (seen === hostAddress) return 'host';
  throw new Error(`the container saw ${seen}, which is nobody's`);
}

/** A link between the host and another machine, which has a route to the containers. */
function connectMachines(host: NetworkNamespace, remote: NetworkNamespace): void {
  host.run('ip', ['link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', remote.name]);
  host.run('ip', ['addr', 'add', `${hostAddress}/24`, 'dev', 'up0']);
  host.run('ip', ['link', 'set', 'up0', 'up']);
  remote.run('ip', ['addr', 'add', `${remoteAddress}/24`, 'dev', 'eth0']);
  remote.run('ip', ['link', 'set', 'eth0', 'up']);
  remote.run('ip', ['route', 'add', '10.211.0.0/16', 'via', hostAddress]);
}
