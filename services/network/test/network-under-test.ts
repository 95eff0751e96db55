import { execFileSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { NetworkConfig } from '@flotilla/config';
import { silentLogger } from '@flotilla/log';
import { network as proto } from '@flotilla/proto';
import type { events } from '@flotilla/proto';
import { Store } from '@flotilla/store';
import { connect } from '@flotilla/rpc';
import type { TypedClient } from '@flotilla/rpc';
import { createNetworkNamespace, makeTempDir, waitFor } from '@flotilla/testkit';
import type { NetworkNamespace, TempDir } from '@flotilla/testkit';

const main = fileURLToPath(new URL('../dist/main.js', import.meta.url));

export type NetworkClient = TypedClient<typeof proto.NetworkServiceService>;
export const call = { deadlineMs: 20_000 };

export const isRoot = process.getuid?.() === 0;

/** The real service as a process of its own, with a network namespace as its "host". */
export class NetworkUnderTest implements AsyncDisposable {
  readonly host: NetworkNamespace;
  readonly client: NetworkClient;
  readonly execRoot: string;
  readonly engineId: string;
  readonly #root: TempDir;
  readonly #ownsHost: boolean;
  readonly #configPath: string;
  #process: ChildProcess | undefined;
  #log = '';

  private constructor(
    host: NetworkNamespace,
    root: TempDir,
    block: Partial<NetworkConfig['network']>,
    ownsHost: boolean,
  ) {
    this.host = host;
    this.#ownsHost = ownsHost;
    this.#root = root;
    this.engineId = randomUUID();
    this.execRoot = join(root.path, 'exec');
    const dataRoot = join(root.path, 'data');
    mkdirSync(this.execRoot);
    mkdirSync(dataRoot);
    const socket = join(this.execRoot, 'network.sock');
    writeFileSync(join(root.path, 'resolv.conf'), 'nameserver 127.0.0.1\nsearch example.test\n');
    const config: NetworkConfig = {
      service: 'network',
      version: '0.0.0-test',
      engineId: this.engineId,
      dataRoot,
      execRoot: this.execRoot,
      dataDir: join(dataRoot, 'network'),
      listen: { kind: 'unix', path: socket },
      services: {},
      nats: null,
      log: { level: 'info', format: 'text' },
      network: {
        bridge: 'tbr0',
        mtu: 0,
        defaultAddressPools: [{ base: '10.88.0.0/16', size: 24 }],
        defaultHostIp: '',
        ipv6: false,
        icc: true,
        ipMasq: true,
        iptables: true,
        ip6tables: true,
        allowDirectRouting: false,
        defaultNetworkOptions: {},
        ipForward: true,
        resolvConfPath: join(root.path, 'resolv.conf'),
        dns: [],
        dnsOptions: [],
        dnsSearch: [],
        hostGatewayIps: [],
        ...block,
      },
    };
    this.#configPath = join(root.path, 'network.json');
    writeFileSync(this.#configPath, JSON.stringify(config));
    this.client = connect(proto.NetworkServiceService, `unix:${socket}`, { log: silentLogger() });
  }

  /** @param shared namespace of another engine to run beside; its maker disposes it */
  static async start(
    block: Partial<NetworkConfig['network']> = {},
    shared?: NetworkNamespace,
  ): Promise<NetworkUnderTest> {
    const service = new NetworkUnderTest(
      shared ?? createNetworkNamespace(),
      await makeTempDir('network'),
      block,
      shared === undefined,
    );
    try {
      await service.startProcess();
    } catch (error) {
      await service[Symbol.asyncDispose]();
      throw error;
    }
    return service;
  }

  /** Of the service, which runs. */
  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  /** What the service logged, for messages of failed tests. */
  get log(): string {
    return this.#log;
  }

  async startProcess(): Promise<void> {
    const child = this.host.spawn(process.execPath, [main, '--config', this.#configPath], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.#log += text));
    this.#process = child;
    const started = this.#log.length;
    await waitFor(() => this.#log.slice(started).includes('service started') || (child.exitCode !== null && 'exited'), {
      what: 'the service to start',
    });
    if (child.exitCode !== null) throw new Error(`the service did not start: ${this.#log}`);
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  async stop(): Promise<void> {
    await this.#end('SIGTERM');
  }

  /** Stop the service and read the events that it recorded. */
  async stopAndReadEvents(): Promise<events.Event[]> {
    await this.stop();
    await using store = await Store.open(join(this.#root.path, 'data', 'network', 'db'), {
      service: 'network',
      schemaVersion: 1,
    });
    return (await store.outbox.read(0n, 1000)).map(({ event }) => event);
  }

  /** Overwrite records of the stopped service, by collection and key, with these bytes (latin1). */
  async writeRaw(collections: Record<string, Record<string, string>>): Promise<void> {
    await using store = await Store.open(join(this.#root.path, 'data', 'network', 'db'), {
      service: 'network',
      schemaVersion: 1,
    });
    await store.commit((batch) => {
      for (const [name, records] of Object.entries(collections)) {
        const collection = store.collection<string>(name, {
          encode: (text) => Buffer.from(text, 'latin1'),
          decode: (bytes) => Buffer.from(bytes).toString('latin1'),
        });
        for (const [key, text] of Object.entries(records)) batch.put(collection, key, text);
      }
    });
  }

  /** Run a command inside a container's namespace. */
  inContainer(containerId: string, command: string, args: readonly string[]): string {
    const file = join(this.execRoot, 'netns', containerId);
    return execFileSync('nsenter', [`--net=${file}`, '--', command, ...args], { encoding: 'utf8', stdio: 'pipe' });
  }

  /** Prepare a sandbox with a random id. */
  async prepare(
    request: Partial<proto.PrepareSandboxRequest>,
  ): Promise<proto.PrepareSandboxResponse & { containerId: string }> {
    const containerId = request.containerId ?? newContainerId();
    const full = proto.PrepareSandboxRequest.fromPartial({
      containerName: `c-${containerId.slice(0, 6)}`,
      hostname: containerId.slice(0, 12),
      ...request,
      containerId,
    });
    return { ...(await this.client.prepareSandbox(full, call)), containerId };
  }

  /** Names of everything that the service may leave behind. */
  traces(): { links: string[]; tables: string[]; namespaces: string[] } {
    const links = JSON.parse(this.host.run('ip', ['-j', 'link'])) as { ifname: string }[];
    return {
      links: links.map(({ ifname }) => ifname).filter((name) => name !== 'lo'),
      tables: this.host
        .run('nft', ['list', 'tables'])
        .split('\n')
        .filter((line) => line !== ''),
      namespaces: readdirSync(join(this.execRoot, 'netns')),
    };
  }

  ruleset(): string {
    return this.host.run('nft', ['list', 'ruleset']);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.close();
    await this.stop();
    for (const path of mountsBelow(this.#root.path)) execFileSync('umount', ['-l', path]);
    if (this.#ownsHost) this.host[Symbol.dispose]();
    await this.#root[Symbol.asyncDispose]();
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }
}

export function newContainerId(): string {
  return randomBytes(32).toString('hex');
}

/** What an endpoint asks for, with defaults. */
export function endpoint(network: string, more: Partial<proto.EndpointRequest> = {}): proto.EndpointRequest {
  return proto.EndpointRequest.fromPartial({ network, ...more });
}

export function port(containerPort: number, more: Partial<proto.PortBinding> = {}): proto.PortBinding {
  return proto.PortBinding.fromPartial({ protocol: 'tcp', containerPort, ...more });
}

function mountsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .flatMap((line) => line.split(' ')[1] ?? [])
    .filter((path) => path.startsWith(`${directory}/`))
    .reverse();
}
