import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import {
  createNetworkNamespace,
  makePodman,
  startDockerd,
  startEngine,
  startRegistry,
  type FixtureImage,
  type NetworkNamespace,
  type PodmanPeer,
} from '@flotilla/testkit';
import { EngineApi } from './engine-api.js';
import type { BenchEngine } from './measurement.js';

/** A started engine, its namespace and its registry; disposing ends all of it. */
export interface StartedEngine extends AsyncDisposable {
  readonly bench: BenchEngine;
  /** Milliseconds from spawn to the first 200 of /containers/json. */
  readonly startMs: number;
  readonly version: string;
}

const REGISTRY_PORT = 5000;
const UPLOADS_PORT = 5001;

function pssKib(pid: number): number {
  try {
    return Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0; // ended meanwhile
  }
}

/** `pid` and everything below it in the process tree. */
export function processTree(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
    } catch {
      continue; // ended meanwhile
    }
  }
  const tree = [pid];
  for (const each of tree) tree.push(...(children.get(each) ?? []));
  return tree;
}

function shims(directory: string): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((entry) => {
      try {
        const words = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0');
        return words[0]?.includes('containerd-shim') === true && words.some((word) => word.includes(directory));
      } catch {
        return false;
      }
    })
    .map(Number);
}

const accessLog = (directory: string): string => `${directory}/registry.log`;
const uploadsDirectory = (directory: string): string => `${directory}/uploads`;

function benchEngine(
  name: BenchEngine['name'],
  socket: string,
  namespace: NetworkNamespace,
  directory: string,
  processes: () => number[],
  restart: () => Promise<number>,
  environment: NodeJS.ProcessEnv = {},
): BenchEngine {
  const env = { ...process.env, DOCKER_HOST: `unix://${socket}`, ...environment };
  return {
    name,
    api: new EngineApi(socket),
    registry: `127.0.0.1:${REGISTRY_PORT}`,
    uploads: {
      prefix: `127.0.0.1:${UPLOADS_PORT}`,
      clear: () => rmSync(`${uploadsDirectory(directory)}/data`, { recursive: true, force: true }),
    },
    scratch: directory,
    forgetDownloads() {
      const kept = `${directory}/engine/data/registry-proxy/blobs/complete`;
      if (existsSync(kept)) for (const file of readdirSync(kept)) rmSync(`${kept}/${file}`);
    },
    blobDownloads: () =>
      readFileSync(accessLog(directory), 'utf8').match(/"GET \S*\/blobs\/\S* HTTP\/1\.1" 20[06] /g)?.length ?? 0,
    cli(args, input) {
      execFileSync('docker', [...args], {
        env,
        stdio: [input ? 'pipe' : 'ignore', 'ignore', 'pipe'],
        ...(input ? { input } : {}),
      });
    },
    shell(line) {
      const [file, argv] = namespace.command('bash', ['-o', 'pipefail', '-c', line]);
      execFileSync(file, argv, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    },
    read: ([program = '', ...args]) => namespace.run(program, args),
    pssKib: () => processes().reduce((sum, pid) => sum + pssKib(pid), 0),
    restart,
    shimPssKib: () => shims(directory).reduce((sum, pid) => sum + pssKib(pid), 0),
  };
}

/** A program `docker` that is podman, with what dockerd takes for granted of registries on loopback. @returns its directory. */
function podmanAsDocker(podman: PodmanPeer, bin: string): string {
  const { file, argv } = podman.command([]);
  const program = [file, ...argv].map((word) => `'${word}'`).join(' ');
  mkdirSync(bin, { recursive: true });
  const lines = [
    '#!/bin/sh',
    'command=$1; shift',
    'case $command in',
    'pull|push) set -- --tls-verify=false "$@" ;;',
    // Its default limits may be above those of this process.
    'run) set -- --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "$@" ;;',
    'esac',
    `exec ${program} "$command" "$@"`,
  ];
  writeFileSync(`${bin}/docker`, `${lines.join('\n')}\n`, { mode: 0o755 });
  return bin;
}

/** Start one engine with its own namespace, registry and data root below `directory`. */
export async function startBenchEngine(
  name: BenchEngine['name'],
  options: {
    directory: string;
    cacheDirectory: string;
    images: readonly { image: FixtureImage; repository: string; tag: string }[];
  },
): Promise<StartedEngine> {
  const namespace = createNetworkNamespace();
  const { directory: top } = options;
  mkdirSync(top, { recursive: true });
  const registry = await startRegistry({
    directory: `${top}/registry`,
    port: REGISTRY_PORT,
    namespace,
    accessLog: accessLog(top),
  });
  const uploads = await startRegistry({ directory: uploadsDirectory(top), port: UPLOADS_PORT, namespace });
  for (const { image, repository, tag } of options.images) await registry.push(image, repository, tag);
  const directory = `${top}/engine`;
  const disposeRegistries = async (): Promise<void> => {
    await uploads[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    namespace[Symbol.dispose]();
  };
  if (name === 'dockerd') {
    const peer = await startDockerd({ directory, cacheDirectory: options.cacheDirectory, namespace });
    const version = execFileSync('docker', ['version', '--format', 'dockerd {{.Server.Version}}'], {
      env: { ...process.env, DOCKER_HOST: `unix://${peer.socket}` },
      encoding: 'utf8',
    }).trim();
    return {
      bench: benchEngine(
        name,
        peer.socket,
        namespace,
        top,
        () => peer.processIds(),
        async () => {
          await peer.restart();
          return peer.startMs;
        },
      ),
      startMs: peer.startMs,
      version,
      async [Symbol.asyncDispose]() {
        await peer[Symbol.asyncDispose]();
        await disposeRegistries();
      },
    };
  }
  if (name === 'podman') {
    const podman = makePodman({ directory, namespace, storageDriver: 'overlay' });
    const bin = podmanAsDocker(podman, `${top}/bin`);
    const environment = { ...podman.environment, PATH: `${bin}:${process.env['PATH'] ?? ''}` };
    return {
      bench: benchEngine(
        name,
        `${directory}/none`,
        namespace,
        top,
        () => [],
        () => Promise.resolve(0),
        environment,
      ),
      startMs: 0,
      version: await podman.ok('version', '--format', 'podman {{.Client.Version}}'),
      async [Symbol.asyncDispose]() {
        await podman.run(['rm', '-fa']);
        await podman[Symbol.asyncDispose]();
        await disposeRegistries();
      },
    };
  }
  const engine = await startEngine({ directory, namespace });
  return {
    bench: benchEngine(
      name,
      engine.socket,
      namespace,
      top,
      () => processTree(engine.launcherPid),
      async () => {
        await engine.stop();
        await engine.start();
        return engine.startMs;
      },
    ),
    startMs: engine.startMs,
    version: 'flotilla',
    async [Symbol.asyncDispose]() {
      await engine[Symbol.asyncDispose]();
      await disposeRegistries();
    },
  };
}
