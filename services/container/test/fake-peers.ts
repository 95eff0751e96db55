import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { conflict, notFound } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { image, network, volume } from '@flotilla/proto';
import { type RunningServer, serve, serviceEntry, unary } from '@flotilla/rpc';
import { writeBusyboxRootfs } from '@flotilla/testkit';

/** An image service with one busybox image and real directories for writable layers. */
export class FakeImages {
  readonly layers = new Map<string, string>();
  readonly images = new Map<string, { config: Partial<image.ImageConfig>; lower: string[] }>();
  readonly root: string;
  /** What every release of a layer fails with. */
  failure: string | undefined;
  /** As the real one does for a while: a reconciliation releases nothing. */
  keepsYoung = false;

  constructor(root: string) {
    this.root = root;
    const busybox = join(root, 'busybox');
    mkdirSync(busybox, { recursive: true });
    writeBusyboxRootfs(busybox);
    const env = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];
    this.images.set('busybox', { config: { env, cmd: ['sh'], hasCmd: true }, lower: [busybox] });
  }

  /** A further image: one more layer above busybox, filled by `fill`. */
  add(name: string, config: Partial<image.ImageConfig>, fill: (directory: string) => void): void {
    const base = this.images.get('busybox');
    const layer = join(this.root, `layer-${name}`);
    mkdirSync(layer, { recursive: true });
    fill(layer);
    this.images.set(name, { config: { ...base?.config, ...config }, lower: [layer, ...(base?.lower ?? [])] });
  }

  #dir(containerId: string): string {
    return join(this.root, 'containers', containerId);
  }

  readonly handlers = {
    prepareContainerLayer: unary((request: image.PrepareContainerLayerRequest) => {
      const found = this.images.get(request.image);
      if (found === undefined) throw notFound(`No such image: ${request.image}:latest`);
      const id = request.holder?.containerId ?? '';
      const [upperDir, workDir] = [join(this.#dir(id), 'diff'), join(this.#dir(id), 'work')];
      for (const dir of [upperDir, workDir]) mkdirSync(dir, { recursive: true });
      this.layers.set(id, request.image);
      const shown = image.Image.fromPartial({ id: `sha256:${'ab'.repeat(32)}`, config: found.config });
      return Promise.resolve({
        image: shown,
        lowerDirs: found.lower,
        upperDir,
        workDir,
        warnings: [],
        revision: 1n,
        driver: 'overlay2',
        mountedImages: request.mountedImages.map((name) => ({
          id: `sha256:${'cd'.repeat(32)}`,
          lowerDirs: this.images.get(name)?.lower ?? [],
        })),
      });
    }),
    releaseContainerLayer: unary(({ containerId }: image.ReleaseContainerLayerRequest) => {
      if (this.failure !== undefined) throw conflict(this.failure);
      this.#release(containerId);
      return Promise.resolve({ revision: 1n });
    }),
    getContainerLayerUsage: unary(() => Promise.resolve({ sizeRwBytes: 10n, sizeRootFsBytes: 1000n })),
    reconcileHolders: unary(({ liveContainerIds }: image.ReconcileHoldersRequest) => {
      if (this.keepsYoung) return Promise.resolve({ released: [] });
      const released = [...this.layers.keys()].filter((id) => !liveContainerIds.includes(id));
      for (const id of released) this.#release(id);
      return Promise.resolve({ released });
    }),
  };

  #release(id: string): void {
    this.layers.delete(id);
    rmSync(this.#dir(id), { recursive: true, force: true });
  }
}

/** A volume service of plain directories. */
export class FakeVolumes {
  readonly volumes = new Map<string, { anonymous: boolean; holders: Set<string>; destination: string }>();
  readonly mounted = new Set<string>();
  /** Volumes that are not directories of the engine's. */
  readonly contents = new Map<string, volume.VolumeContent>();
  readonly root: string;
  /** As the real one does for a while: a reconciliation releases nothing. */
  keepsYoung = false;
  /** Runs after a volume was acquired and before the answer. */
  afterAcquire: () => Promise<void> = () => Promise.resolve();

  constructor(root: string) {
    this.root = root;
  }

  pathOf(name: string): string {
    return join(this.root, name, '_data');
  }

  readonly handlers = {
    acquireVolume: unary(async ({ holder, name, destination }: volume.AcquireVolumeRequest) => {
      const id = holder?.containerId ?? '';
      const same = [...this.volumes].find(
        ([, v]) => name === '' && v.anonymous && v.destination === destination && v.holders.has(id),
      );
      const actual = same?.[0] ?? (name === '' ? randomBytes(32).toString('hex') : name);
      const entry = this.volumes.get(actual) ?? { anonymous: name === '', holders: new Set<string>(), destination };
      entry.holders.add(id);
      this.volumes.set(actual, entry);
      mkdirSync(this.pathOf(actual), { recursive: true });
      const made = volume.Volume.fromPartial({ name: actual, driver: 'local', mountpoint: this.pathOf(actual) });
      await this.afterAcquire();
      return { volume: made, created: true, revision: 1n };
    }),
    releaseVolumes: unary(({ containerId, removeAnonymous }: volume.ReleaseVolumesRequest) => {
      return Promise.resolve({ removed: this.#release(containerId, removeAnonymous), revision: 1n });
    }),
    mountVolume: unary(({ containerId, name }: volume.MountVolumeRequest) => {
      this.mounted.add(`${containerId} ${name}`);
      const path = this.pathOf(name);
      const content = this.contents.get(name) ?? volume.VolumeContent.UNSPECIFIED;
      return Promise.resolve({ path, fresh: readdirSync(path).length === 0, content, copyStaging: '.copying' });
    }),
    unmountVolumes: unary(({ containerId }: volume.UnmountVolumesRequest) => {
      for (const key of this.mounted) if (key.startsWith(containerId)) this.mounted.delete(key);
      return Promise.resolve({});
    }),
    reconcileHolders: unary(({ liveContainerIds }: volume.ReconcileHoldersRequest) => {
      if (this.keepsYoung) return Promise.resolve({ released: [] });
      const dead = new Set(
        [...this.volumes.values()].flatMap((v) => [...v.holders]).filter((id) => !liveContainerIds.includes(id)),
      );
      for (const id of dead) this.#release(id, false);
      return Promise.resolve({ released: [...dead] });
    }),
  };

  #release(containerId: string, removeAnonymous: boolean): string[] {
    const removed: string[] = [];
    for (const [name, entry] of this.volumes) {
      if (!entry.holders.delete(containerId) || entry.holders.size > 0 || !removeAnonymous || !entry.anonymous)
        continue;
      this.volumes.delete(name);
      rmSync(join(this.root, name), { recursive: true, force: true });
      removed.push(name);
    }
    return removed;
  }
}

/** A network service with one real namespace (loopback only) for all, and port book-keeping. */
export class FakeNetworks implements Disposable {
  readonly sandboxes = new Map<string, network.PrepareSandboxRequest>();
  readonly known = new Map([
    ['bridge', '1'.repeat(64)],
    ['host', '2'.repeat(64)],
    ['none', '3'.repeat(64)],
    ['front', '4'.repeat(64)],
  ]);
  readonly namespace = `flotilla-ct-${randomBytes(4).toString('hex')}`;

  constructor() {
    execFileSync('ip', ['netns', 'add', this.namespace]);
    execFileSync('ip', ['-n', this.namespace, 'link', 'set', 'lo', 'up']);
  }

  [Symbol.dispose](): void {
    execFileSync('ip', ['netns', 'del', this.namespace]);
  }

  #require(name: string): string {
    const id = this.known.get(name);
    if (id === undefined) throw notFound(`network ${name} not found`);
    return id;
  }

  #endpoint(containerId: string, request: network.EndpointRequest): network.Endpoint {
    return network.Endpoint.fromPartial({
      id: randomBytes(32).toString('hex'),
      networkId: this.#require(request.network),
      networkName: request.network,
      containerId,
      ipv4Address: '10.9.0.2',
      ipv4PrefixLength: 24,
    });
  }

  readonly handlers = {
    checkSandbox: unary(({ endpoints }: network.CheckSandboxRequest) =>
      Promise.resolve({
        warnings: [],
        networkIds: endpoints.map(({ network: name }) => this.#require(name)),
        networkNames: endpoints.map(({ network: name }) => name),
      }),
    ),
    prepareSandbox: unary((request: network.PrepareSandboxRequest) => {
      for (const { hostPort } of request.ports) {
        for (const [id, other] of this.sandboxes) {
          if (id !== request.containerId && hostPort !== 0 && other.ports.some((port) => port.hostPort === hostPort)) {
            throw conflict(`Bind for 0.0.0.0:${hostPort} failed: port is already allocated`);
          }
        }
      }
      this.sandboxes.set(request.containerId, request);
      return Promise.resolve({
        sandboxId: request.containerId,
        namespacePath: request.hostMode ? '' : request.adoptedNamespacePath || `/run/netns/${this.namespace}`,
        endpoints: request.endpoints.map((endpoint) => this.#endpoint(request.containerId, endpoint)),
        ports: request.ports,
        resolvConf: 'nameserver 192.0.2.53\n',
        hosts: request.endpoints.length === 0 ? [] : [{ address: '10.9.0.2', names: [request.hostname] }],
        revision: 1n,
      });
    }),
    releaseSandbox: unary(({ containerId }: network.ReleaseSandboxRequest) => {
      this.sandboxes.delete(containerId);
      return Promise.resolve({ revision: 1n });
    }),
    renameSandbox: unary(() => Promise.resolve({ endpoints: [], revision: 1n })),
    connectSandbox: unary(({ containerId, endpoint }: network.ConnectSandboxRequest) =>
      Promise.resolve({
        endpoint: this.#endpoint(containerId, endpoint ?? network.EndpointRequest.fromPartial({})),
        hosts: [],
        resolvConf: '',
        revision: 1n,
      }),
    ),
    disconnectSandbox: unary(() => Promise.resolve({ revision: 1n })),
    reconcileHolders: unary(({ liveContainerIds }: network.ReconcileHoldersRequest) => {
      const released = [...this.sandboxes.keys()].filter((id) => !liveContainerIds.includes(id));
      for (const id of released) this.sandboxes.delete(id);
      return Promise.resolve({ released });
    }),
  };
}

/** Serve the three on sockets in `execRoot`, as the real ones would. */
export async function servePeers(
  execRoot: string,
  log: Logger,
  peers: { images: FakeImages; volumes: FakeVolumes; networks: FakeNetworks },
): Promise<AsyncDisposable> {
  const entries = {
    image: serviceEntry(image.ImageServiceService, peers.images.handlers),
    volume: serviceEntry(volume.VolumeServiceService, peers.volumes.handlers),
    network: serviceEntry(network.NetworkServiceService, peers.networks.handlers),
  };
  const servers: RunningServer[] = [];
  for (const [service, entry] of Object.entries(entries)) {
    const listen = { kind: 'unix' as const, path: join(execRoot, `${service}.sock`) };
    servers.push(await serve({ listen, services: [entry], log, service, version: '0' }));
  }
  return {
    [Symbol.asyncDispose]: async () => {
      for (const server of servers) await server[Symbol.asyncDispose]();
    },
  };
}
