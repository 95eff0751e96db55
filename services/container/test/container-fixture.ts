import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerConfig } from '@flotilla/config';
import { startContainerService } from '@flotilla/container';
import { silentLogger } from '@flotilla/log';
import { container } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import { makeShared, readMounts, umountAll } from '@flotilla/sys';
import { makeTempDir } from '@flotilla/testkit';
import { FakeImages, FakeNetworks, FakeVolumes, servePeers } from './fake-peers.js';

export const log = silentLogger();
/** More patient than the gateway: these tests kill the service again and again, also on a busy machine. */
export const deadline = { deadlineMs: 60_000, retryUnavailableMs: 50_000 };
export const engineId = '5d1c9a4e-6f0d-4e52-9d46-2f6f8f0a1c11';

export const canRun =
  process.getuid?.() === 0 && existsSync('/usr/bin/containerd-shim-runc-v2') && existsSync('/bin/busybox');

export type ContainerClient = ReturnType<typeof connectContainers>;

export function connectContainers(address: string) {
  return connect(container.ContainerServiceService, address, { log });
}

export function configFor(root: string): ContainerConfig {
  const execRoot = join(root, 'run');
  return {
    ...{ service: 'container', version: '0.1.0', engineId, nats: null, services: {} },
    dataRoot: root,
    execRoot,
    dataDir: join(root, 'container'),
    listen: { kind: 'unix', path: join(execRoot, 'container.sock') },
    log: { level: 'silent', format: 'json' },
    container: {
      defaultRuntime: 'runc',
      runtimes: { runc: { path: 'runc', runtimeArgs: [] } },
      logDriver: 'json-file',
      logOpts: {},
      defaultUlimits: [],
      defaultShmSizeBytes: 64 << 20,
      defaultIpcMode: 'private',
      defaultStopTimeoutSeconds: 10,
      init: false,
      initPath: '/usr/bin/tini-static',
      noNewPrivileges: false,
      seccompProfile: 'builtin',
      cgroupParent: '',
      dns: [],
      dnsOptions: [],
      dnsSearch: [],
      hostGatewayIps: [],
      resolvConfPath: '/etc/resolv.conf',
    },
  };
}

export interface Peers {
  images: FakeImages;
  volumes: FakeVolumes;
  networks: FakeNetworks;
}

/** Directories and peers for a container service that a test starts itself, in this process or another. */
export async function makeEngineRoot(nats: ContainerConfig['nats'] = null) {
  const root = await makeTempDir('ct');
  const config = { ...configFor(root.path), nats };
  const bundles = join(config.execRoot, 'containers');
  mkdirSync(bundles, { recursive: true });
  makeShared(bundles);
  const peers: Peers = {
    images: new FakeImages(join(root.path, 'image')),
    volumes: new FakeVolumes(join(root.path, 'volumes')),
    networks: new FakeNetworks(),
  };
  let serving = await servePeers(config.execRoot, log, peers);
  return {
    root: root.path,
    config,
    peers,
    bundles,
    /** The peers are down for a while, and come back with what they know. */
    async restartPeers(downMs: number): Promise<void> {
      await serving[Symbol.asyncDispose]();
      await new Promise((resolve) => setTimeout(resolve, downMs));
      serving = await servePeers(config.execRoot, log, peers);
    },
    /** What a service that has nothing running leaves behind: nothing. */
    leftovers(): string[] {
      const shims = readdirSync('/proc')
        .filter((pid) => /^\d+$/.test(pid))
        .filter((pid) => readCommand(pid).includes(config.execRoot) && readCommand(pid).includes('shim'))
        .map((pid) => `shim ${pid}`);
      const mounts = readMounts()
        .filter(({ target }) => target.startsWith(`${bundles}/`))
        .map(({ target }) => `mount ${target}`);
      const sandboxes = [...peers.networks.sandboxes.keys()].map((id) => `sandbox ${id}`);
      return [...shims, ...mounts, ...sandboxes, ...readdirSync(bundles).map((name) => `bundle ${name}`)];
    },
    async [Symbol.asyncDispose](): Promise<void> {
      await serving[Symbol.asyncDispose]();
      peers.networks[Symbol.dispose]();
      umountAll(bundles);
      await root[Symbol.asyncDispose]();
    },
  };
}

function readCommand(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

/** A container service in this process with working fakes of its peers. */
export async function makeContainerService(
  nats: ContainerConfig['nats'] = null,
  block: Partial<ContainerConfig['container']> = {},
) {
  const engine = await makeEngineRoot(nats);
  // The root of a remapped container has to get through.
  chmodSync(engine.root, 0o711);
  Object.assign(engine.config.container, block);
  const overrides = { log };
  let server = await startContainerService(engine.config, overrides).catch(async (error: unknown) => {
    await engine[Symbol.asyncDispose]();
    throw error;
  });
  const client = connectContainers(server.address);
  return {
    ...engine,
    client,
    async restart(between: () => Promise<void> = () => Promise.resolve()): Promise<void> {
      await server[Symbol.asyncDispose]();
      await between();
      server = await startContainerService(engine.config, overrides);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      const { containers } = await client.listContainers({}, deadline);
      for (const { id } of containers) {
        await client.removeContainer({ name: id, force: true, volumes: true, link: false }, deadline);
      }
      client.close();
      await server[Symbol.asyncDispose]();
      await engine[Symbol.asyncDispose]();
    },
  };
}

/** A create request; `cmd` is the program with its arguments. */
export function createRequest(
  cmd: string[],
  fields: {
    name?: string;
    image?: string;
    config?: Partial<container.ContainerConfig>;
    hostConfig?: Partial<container.HostConfig>;
  } = {},
): container.CreateContainerRequest {
  return container.CreateContainerRequest.fromPartial({
    name: fields.name ?? '',
    config: { image: fields.image ?? 'busybox', cmd, ...fields.config },
    hostConfig: { networkMode: 'none', ...fields.hostConfig },
  });
}

/** Wait until a container does not run (or the given condition) and return its exit code. */
export async function waitFor(
  client: ContainerClient,
  name: string,
  condition: container.WaitCondition = container.WaitCondition.NOT_RUNNING,
): Promise<number> {
  for await (const { event } of client.waitContainer({ name, condition, resumeExitSequence: 0n })) {
    if (event?.$case === 'result') return Number(event.value.exitCode);
  }
  throw new Error('the wait ended without a result');
}

/** Everything in a container's log, raw (with a terminal) or with its frames taken off. */
export async function readLog(client: ContainerClient, name: string): Promise<string> {
  const request = container.StreamLogsRequest.fromPartial({ name, stdout: true, stderr: true });
  const chunks: Buffer[] = [];
  for await (const { output } of client.streamLogs(request)) chunks.push(output);
  const bytes = Buffer.concat(chunks);
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const length = bytes.readUInt32BE(at + 4);
    text += bytes.toString('utf8', at + 8, at + 8 + length);
    at += 8 + length;
  }
  return text;
}
