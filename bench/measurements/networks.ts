import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { elapsedMs, median, type BenchEngine, type Measurement } from '../measurement.js';

const NETWORK = 'bench';
const SERVER_PORT = 5201;
const PUBLISHED_PORT = 15201;
const SHARE_PAIRS = 5;
const SECONDS = 3;
const OUTSTANDING_QUERIES = 20;

/** The user-defined network and the two containers in it that traffic runs between. */
interface Pair {
  readonly server: string;
  readonly serverPid: number;
  readonly clientPid: number;
  readonly containers: readonly string[];
}
const pairs = new Map<string, Pair>();
let created = 0;

const createNetwork = async ({ api }: BenchEngine, name: string): Promise<string> => {
  const { body } = await api.call('POST', '/networks/create', [201], { Name: name, CheckDuplicate: true });
  return (JSON.parse(body.toString()) as { Id: string }).Id;
};

const removeNetwork = ({ api }: BenchEngine, name: string) => api.call('DELETE', `/networks/${name}`, [204]);

const exposing = { ExposedPorts: { [`${SERVER_PORT}/tcp`]: {} } };
const publishing = (hostPort: string) => ({
  NetworkMode: NETWORK,
  PortBindings: { [`${SERVER_PORT}/tcp`]: [{ HostPort: hostPort }] },
});

const inspected = async ({ api }: BenchEngine, id: string) => {
  const { body } = await api.call('GET', `/containers/${id}/json`, [200]);
  return JSON.parse(body.toString()) as {
    State: { Pid: number };
    NetworkSettings: { Networks: Record<string, { IPAddress: string }> };
  };
};

const startedIn = async (engine: BenchEngine, hostConfig: object, aliases: string[] = []): Promise<string> => {
  const config = { ...exposing, NetworkingConfig: { EndpointsConfig: { [NETWORK]: { Aliases: aliases } } } };
  const id = await engine.api.create('busybox', ['sleep', '3600'], hostConfig, config);
  await engine.api.start(id);
  return id;
};

const preparePair = async (engine: BenchEngine): Promise<void> => {
  if (pairs.has(engine.name)) return;
  await createNetwork(engine, NETWORK);
  const server = await startedIn(engine, publishing(String(PUBLISHED_PORT)), ['server']);
  const client = await startedIn(engine, { NetworkMode: NETWORK });
  const seen = await inspected(engine, server);
  pairs.set(engine.name, {
    server: seen.NetworkSettings.Networks[NETWORK]?.IPAddress ?? '',
    serverPid: seen.State.Pid,
    clientPid: (await inspected(engine, client)).State.Pid,
    containers: [server, client],
  });
};

const pairOf = ({ name }: BenchEngine): Pair => {
  const pair = pairs.get(name);
  if (pair === undefined) throw new Error(`${name} has no containers to run traffic between`);
  return pair;
};

/** Remove the containers that traffic ran between, and their network. */
export async function removeNetworkContainers(engine: BenchEngine): Promise<void> {
  const pair = pairs.get(engine.name);
  if (pair === undefined) return;
  pairs.delete(engine.name);
  for (const id of pair.containers) await engine.api.remove(id);
  await removeNetwork(engine, NETWORK);
}

const inNamespaceOf = (pid: number, command: readonly string[]): string[] => [
  `--net=/proc/${pid}/ns/net`,
  '--',
  ...command,
];

/** One run of iperf3 between the containers, or from the host. @returns Gbit/s as the receiver saw them. */
async function throughput(engine: BenchEngine, address: string, port: number, isFromHost: boolean): Promise<number> {
  const { serverPid, clientPid } = pairOf(engine);
  const server = spawn(
    'nsenter',
    inNamespaceOf(serverPid, ['iperf3', '-s', '-1', '--forceflush', '-p', String(SERVER_PORT)]),
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await once(server.stdout, 'data');
  const ended = once(server, 'exit');
  try {
    const command = ['iperf3', '-J', '-t', String(SECONDS), '-c', address, '-p', String(port)];
    const out = isFromHost
      ? engine.read(command)
      : execFileSync('nsenter', inNamespaceOf(clientPid, command), { encoding: 'utf8', maxBuffer: 1 << 26 });
    const { end, error } = JSON.parse(out) as { end: { sum_received?: { bits_per_second: number } }; error?: string };
    if (end.sum_received === undefined) throw new Error(`iperf3: ${error}`);
    return end.sum_received.bits_per_second / 1e9;
  } finally {
    server.kill();
    await ended;
  }
}

/** Queries for the neighbour's name from inside a container, for some seconds. @returns what dnsperf printed. */
function queries(engine: BenchEngine, options: readonly string[]): string {
  const { clientPid } = pairOf(engine);
  const file = `${engine.scratch}/queries`; // dnsperf reads it again and again
  writeFileSync(file, 'server A\n');
  const command = [
    'dnsperf',
    '-d',
    file,
    '-s',
    '127.0.0.11',
    '-l',
    String(SECONDS),
    '-q',
    String(OUTSTANDING_QUERIES),
    ...options,
  ];
  const out = execFileSync('nsenter', inNamespaceOf(clientPid, command), {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  const lost = Number(/Queries lost:\s+(\d+)/.exec(out)?.[1] ?? -1);
  const right = Number(/NOERROR (\d+)/.exec(out)?.[1] ?? 0);
  const sent = Number(/Queries sent:\s+(\d+)/.exec(out)?.[1] ?? -1);
  if (lost !== 0 || right !== sent) throw new Error(`${sent} queries sent, ${lost} lost, ${right} answered`);
  return out;
}

const startMs = async (engine: BenchEngine, hostConfig: object): Promise<number> => {
  const id = await engine.api.create('busybox', ['sleep', '600'], hostConfig, exposing);
  const ms = await elapsedMs(() => engine.api.start(id));
  await engine.api.remove(id);
  return ms;
};

/** How fast are networks made, containers put into them, names found and bytes carried? */
export const networkMeasurements: readonly Measurement[] = [
  {
    title: 'API network create',
    unit: 'ms',
    rounds: 15,
    measure: (engine) => elapsedMs(() => createNetwork(engine, `made-${++created}`)),
    async cleanUp(engine) {
      await removeNetwork(engine, `made-${created}`);
    },
  },
  {
    title: 'API network remove',
    unit: 'ms',
    rounds: 15,
    async measure(engine) {
      const id = await createNetwork(engine, `gone-${++created}`);
      return await elapsedMs(() => removeNetwork(engine, id));
    },
  },
  ...(['connect', 'disconnect'] as const).map((action): Measurement => ({
    title: `API network ${action} of a running container`,
    unit: 'ms',
    rounds: 15,
    prepare: preparePair,
    async measure(engine) {
      const id = await createNetwork(engine, `joined-${++created}`);
      const body = { Container: pairOf(engine).containers[1] };
      const join = () => engine.api.call('POST', `/networks/${id}/connect`, [200], body);
      const leave = () => engine.api.call('POST', `/networks/${id}/disconnect`, [200], body);
      const joining = await elapsedMs(join);
      const leaving = await elapsedMs(leave);
      await removeNetwork(engine, id);
      return action === 'connect' ? joining : leaving;
    },
  })),
  {
    title: "a start's share for the network: on a user network with a published port, less one with network none",
    unit: 'ms',
    rounds: 5,
    aim: { kind: 'at most', ratio: 0.1 },
    prepare: preparePair,
    async measure(engine) {
      const withPort: number[] = [];
      const without: number[] = [];
      for (let each = 0; each < SHARE_PAIRS; each += 1) {
        withPort.push(await startMs(engine, publishing('')));
        without.push(await startMs(engine, { NetworkMode: 'none' }));
      }
      return median(withPort) - median(without);
    },
  },
  {
    title: '20 containers with published ports on a user network, created and started at once (API)',
    unit: 'ms',
    rounds: 5,
    prepare: preparePair,
    async measure(engine) {
      const ids: string[] = [];
      const ms = await elapsedMs(() =>
        Promise.all(Array.from({ length: 20 }, async () => ids.push(await startedIn(engine, publishing(''))))),
      );
      for (const id of ids) await engine.api.remove(id);
      return ms;
    },
  },
  {
    title: `DNS queries for a neighbour's name, ${OUTSTANDING_QUERIES} at a time`,
    unit: 'req/s',
    rounds: 3,
    prepare: preparePair,
    measure: (engine) => Number(/Queries per second:\s+([\d.]+)/.exec(queries(engine, []))?.[1]),
  },
  {
    title: `99th percentile of these queries' time, 1000 a second`,
    unit: 'ms',
    rounds: 3,
    prepare: preparePair,
    measure(engine) {
      const out = queries(engine, ['-v', '-Q', '1000']);
      const seconds = [...out.matchAll(/^> NOERROR \S+ A ([\d.]+)/gm)].map((match) => Number(match[1]));
      return (seconds.sort((a, b) => a - b)[Math.floor(seconds.length * 0.99)] ?? Number.NaN) * 1000;
    },
  },
  {
    title: 'TCP from container to container on a user network',
    unit: 'Gbit/s',
    rounds: 5,
    aim: { kind: 'at least', ratio: 1 },
    prepare: preparePair,
    measure: (engine) => throughput(engine, pairOf(engine).server, SERVER_PORT, false),
  },
  {
    title: 'TCP from the host to a port published on 127.0.0.1',
    unit: 'Gbit/s',
    rounds: 5,
    aim: { kind: 'at least', ratio: 1 },
    prepare: preparePair,
    measure: (engine) => throughput(engine, '127.0.0.1', PUBLISHED_PORT, true),
  },
];
