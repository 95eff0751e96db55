import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GatewayConfig } from '@flotilla/config';
import { encodeFrame } from '@flotilla/docker-api';
import { alreadyExists, conflict, invalidArgument, notFound, unavailable } from '@flotilla/errors';
import { createLogger } from '@flotilla/log';
import { container, events, image, network, registry, timestampFromDate, volume } from '@flotilla/proto';
import { bidi, clientStream, serve, serverStream, serviceEntry, unary } from '@flotilla/rpc';
import type { RunningServer, ServiceEntry } from '@flotilla/rpc';
import { startApiGateway } from '../src/index.js';
import type { RunningGateway } from '../src/index.js';
import { FakeArchives } from './fake-archives.js';
import { WatchedFake } from './watched-fake.js';

const { ContainerStatus } = container;
const containerComponents = [
  { name: 'containerd-shim', version: '1.6.20', details: { GitCommit: 'c0ffee' } },
  { name: 'runc', version: '1.1.5', details: {} },
  { name: 'docker-init', version: '0.19.0', details: { GitCommit: 'de40ad0' } },
];
export const newId = (): string => randomBytes(32).toString('hex');

/** An event stream that a test fills. */
export class FakeEvents {
  history: events.Event[] = [];
  isDown = false;

  read({
    since = 0n,
    until,
    type,
    signal,
  }: {
    since?: bigint;
    until?: bigint;
    type?: string;
    signal?: AbortSignal;
  }): Promise<AsyncIterable<events.Event>> {
    if (this.isDown) return Promise.reject(unavailable('events are not available: NATS is not reachable'));
    const chosen = this.history.filter(
      (event) =>
        event.timeNs >= since &&
        (until === undefined || event.timeNs <= until) &&
        (type === undefined || event.type === type),
    );
    return Promise.resolve(
      (async function* () {
        yield* chosen;
        if (until === undefined && signal !== undefined)
          await new Promise((resolve) => signal.addEventListener('abort', resolve));
      })(),
    );
  }
}

/** The other services as far as the gateway can tell: they keep what they are told, behind real gRPC. */
export class FakeEngine implements AsyncDisposable {
  readonly containers = new WatchedFake<container.Container>();
  readonly images = new WatchedFake<image.Image>();
  readonly manifests = new Map<string, image.ManifestSummary[]>();
  readonly networks = new WatchedFake<network.Network>();
  readonly volumes = new WatchedFake<volume.Volume>();
  readonly events = new FakeEvents();
  readonly created: container.CreateContainerRequest[] = [];
  readonly requestIds: string[] = [];
  /** What attached clients sent, joined, per container name. */
  readonly stdin = new Map<string, string>();
  readonly pulls: image.PullImageRequest[] = [];
  logs: { text: string; stderr?: boolean }[] = [];
  /** Break the log stream once after this many messages. */
  breakLogsAfter: number | undefined;
  attachTty = false;
  /** So many attaches break off before they are accepted, as in a service that dies. */
  dyingAttaches = 0;
  /** Attaches of containers can be resumed, and say which input has arrived. */
  resumesAttaches = false;
  /** The attach breaks off once at this input: before or after saying that it has arrived. */
  diesAtInput: { text: string; isTaken: boolean } | undefined;
  readonly resumes: container.AttachResume[] = [];
  /** Attaches without output, which only say that whoever had the input is gone. */
  readonly farewells: container.AttachResume[] = [];
  /** Exit of containers whose wait is pending. */
  readonly exits = new Map<string, (code: number) => void>();
  loaded = 0;
  /** Logs never end; what was handed over is counted. */
  endlessLogs = false;
  endlessBytes = 0;
  endlessEnded = false;
  readonly archives = new FakeArchives(() => this.dir);
  dir = '';
  socket = '';
  gateway!: RunningGateway;
  readonly #servers = new Map<string, RunningServer>();

  static async start(): Promise<FakeEngine> {
    const engine = new FakeEngine();
    engine.dir = await mkdtemp(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'gw-'));
    for (const name of ['container', 'image', 'network', 'volume', 'registry-proxy'] as const)
      await engine.startService(name);
    engine.socket = join(engine.dir, 'docker.sock');
    engine.gateway = await startApiGateway(engine.config(), { events: engine.events });
    return engine;
  }

  config(): GatewayConfig {
    const address = (name: string): string => `unix:${join(this.dir, `${name}.sock`)}`;
    return {
      service: 'api-gateway',
      version: '0.1.0',
      engineId: '7a1e3f50-0000-4000-8000-000000000001',
      dataRoot: this.dir,
      execRoot: this.dir,
      dataDir: this.dir,
      listen: { kind: 'unix', path: join(this.dir, 'api-gateway.sock') },
      services: Object.fromEntries(
        ['container', 'image', 'network', 'volume', 'registry-proxy'].map((name) => [name, address(name)]),
      ),
      nats: null,
      log: { level: 'silent', format: 'json' },
      gateway: {
        hosts: [`unix://${this.socket}`],
        group: 'no-such-group',
        debug: false,
        labels: [],
        info: {
          defaultRuntime: 'runc',
          runtimes: { runc: { path: 'runc', runtimeArgs: [] } },
          logDriver: 'json-file',
          insecureRegistries: [],
          registryMirrors: [],
          defaultAddressPools: [],
          initBinary: '/usr/bin/tini-static',
          seccompProfile: 'builtin',
          liveRestore: true,
        },
      },
    };
  }

  async startService(name: string): Promise<void> {
    this.#servers.set(
      name,
      await serve({
        listen: { kind: 'unix', path: join(this.dir, `${name}.sock`) },
        services: [this.#entry(name)],
        log: createLogger({ service: name, level: 'silent' }),
        service: name,
        version: '0.1.0',
        details: () =>
          Promise.resolve({
            components: name === 'container' ? containerComponents : [],
            warnings: [`from ${name}`],
          }),
        drainMs: 10,
      }),
    );
  }

  async stopService(name: string): Promise<void> {
    await this.#servers.get(name)?.[Symbol.asyncDispose]();
    this.#servers.delete(name);
  }

  /** A running container with this name. */
  addContainer(name: string, part: Parameters<typeof container.Container.fromPartial>[0] = {}): container.Container {
    const object = container.Container.fromPartial({
      id: newId(),
      name,
      createdAt: timestampFromDate(new Date()),
      path: 'sleep',
      args: ['1 d'],
      config: {
        image: 'busybox',
        labels: { tier: 'one' },
        exposedPorts: ['80/tcp'],
        cmd: ['sleep', '1 d'],
        hostname: 'h',
      },
      hostConfig: { networkMode: 'bridge', resources: {} },
      state: { status: ContainerStatus.RUNNING, pid: 42, startedAt: timestampFromDate(new Date(Date.now() - 5_500)) },
      networkSettings: {
        networks: [
          {
            network: 'bridge',
            networkId: 'f'.repeat(64),
            endpoint: { id: 'e1', ipv4Address: '172.17.0.2', ipv4PrefixLength: 16, gateway: '172.17.0.1' },
          },
        ],
        ports: [{ protocol: 'tcp', containerPort: 80, hostIp: '0.0.0.0', hostPort: 8080 }],
      },
      imageId: 'sha256:' + 'a'.repeat(64),
      driver: 'overlay2',
      ...part,
    });
    this.containers.put(object.id, object);
    return object;
  }

  addImage(tag: string, part: Parameters<typeof image.Image.fromPartial>[0] = {}): image.Image {
    const object = image.Image.fromPartial({
      id: `sha256:${newId()}`,
      repoTags: [tag],
      createdAt: timestampFromDate(new Date('2024-01-02T03:04:05Z')),
      createdKnown: true,
      platform: { os: 'linux', architecture: 'amd64' },
      sizeBytes: 4_000_000n,
      layers: ['sha256:' + '1'.repeat(64)],
      lowerDirs: ['/layers/1'],
      config: { env: ['PATH=/bin'], cmd: ['sh'], hasCmd: true, labels: { made: 'here' } },
      descriptor: {
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        digest: `sha256:${'2'.repeat(64)}`,
        sizeBytes: 500n,
      },
      ...part,
    });
    this.images.put(object.id, object);
    return object;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.gateway[Symbol.asyncDispose]();
    for (const name of [...this.#servers.keys()]) await this.stopService(name);
    await rm(this.dir, { recursive: true, force: true });
  }

  #entry(name: string): ServiceEntry {
    switch (name) {
      case 'container':
        return this.#containerEntry();
      case 'image':
        return this.#imageEntry();
      case 'network':
        return this.#networkEntry();
      case 'volume':
        return this.#volumeEntry();
      default:
        return serviceEntry(registry.RegistryServiceService, {
          authenticate: unary(({ credentials }) =>
            credentials?.password === 'right'
              ? Promise.resolve({ status: 'Login Succeeded', identityToken: '' })
              : Promise.reject(invalidArgument('wrong')),
          ),
        });
    }
  }

  #find(name: string): container.Container {
    for (const object of this.containers.objects.values())
      if (object.id === name || object.name === name || object.id.startsWith(name)) return object;
    throw notFound(`No such container: ${name}`);
  }

  #change(name: string, status: container.ContainerStatus): bigint {
    const object = this.#find(name);
    return this.containers.put(object.id, {
      ...object,
      state: container.ContainerState.fromPartial({
        ...object.state,
        status,
        finishedAt: timestampFromDate(new Date()),
      }),
    });
  }

  #containerEntry(): ServiceEntry {
    return serviceEntry(container.ContainerServiceService, {
      watchContainers: serverStream((_request, { signal }) => this.containers.watch(signal)),
      listContainers: unary(() =>
        Promise.resolve({ containers: [...this.containers.objects.values()], revision: this.containers.revision }),
      ),
      getContainer: unary(({ name, size }) =>
        Promise.resolve({
          container: this.#find(name),
          sizeRwBytes: size ? 12n : 0n,
          sizeRootFsBytes: size ? 4_000_012n : 0n,
        }),
      ),
      createContainer: unary((request, { requestId }) => {
        this.created.push(request);
        this.requestIds.push(requestId);
        if ([...this.containers.objects.values()].some(({ name }) => name === request.name))
          throw alreadyExists(`Conflict. The container name "/${request.name}" is already in use`);
        const object = this.addContainer(request.name, {
          config: request.config,
          hostConfig: request.hostConfig,
          state: { status: ContainerStatus.CREATED },
        });
        return Promise.resolve({ id: object.id, warnings: [], revision: this.containers.revision });
      }),
      startContainer: unary(({ name }) =>
        Promise.resolve(
          this.#find(name).state?.status === ContainerStatus.RUNNING
            ? { outcome: container.StartOutcome.ALREADY_STARTED, revision: 0n }
            : { outcome: container.StartOutcome.STARTED, revision: this.#change(name, ContainerStatus.RUNNING) },
        ),
      ),
      stopContainer: unary(({ name }) =>
        Promise.resolve({
          outcome: container.StopOutcome.STOPPED,
          revision: this.#change(name, ContainerStatus.EXITED),
        }),
      ),
      removeContainer: unary(({ name, force }) => {
        const object = this.#find(name);
        if (object.state?.status === ContainerStatus.RUNNING && !force)
          throw conflict(`cannot remove container "/${object.name}": container is running`);
        return Promise.resolve({ revision: this.containers.delete(object.id) });
      }),
      waitContainer: serverStream(({ name }, { signal }) => this.#wait(name, signal)),
      streamLogs: serverStream((request, { signal }) => this.#streamLogs(request, signal)),
      attachContainer: bidi((requests) => (this.resumesAttaches ? this.#keptAttach(requests) : this.#attach(requests))),
      startExec: bidi((requests) => this.#attach(requests)),
      createExec: unary(() => Promise.resolve({ id: 'exec1', revision: 0n })),
      getExec: unary(({ id }) => {
        if (id !== 'exec1') throw notFound(`No such exec instance: ${id}`);
        return Promise.resolve(
          container.GetExecResponse.fromPartial({
            id,
            containerId: newId(),
            exitCode: 0,
            config: { cmd: ['echo', 'hi'] },
          }),
        );
      }),
      writeArchive: clientStream(async (requests) => {
        for await (const { frame } of requests) if (frame?.$case === 'data') this.loaded += frame.value.length;
        return {};
      }),
    });
  }

  async *#wait(name: string, signal: AbortSignal): AsyncGenerator<container.WaitContainerResponse> {
    const { id } = this.#find(name);
    yield { event: { $case: 'waiting', value: { containerId: id, exitSequence: 0n } } };
    const exitCode = await new Promise<number>((resolve) => {
      this.exits.set(id, resolve);
      signal.addEventListener('abort', () => resolve(-1));
    });
    if (signal.aborted) throw unavailable('going away');
    this.#change(id, ContainerStatus.EXITED);
    yield { event: { $case: 'result', value: { exitCode: BigInt(exitCode), error: '' } } };
  }

  async *#streamLogs(
    { name, position }: container.StreamLogsRequest,
    signal: AbortSignal,
  ): AsyncGenerator<container.StreamLogsResponse> {
    const { id } = this.#find(name);
    yield { output: Buffer.alloc(0), position, attached: { containerId: id, tty: false, exitSequence: 0n } };
    while (this.endlessLogs) {
      try {
        yield { output: Buffer.alloc(65_536), position: '' };
        this.endlessBytes += 65_536;
      } finally {
        // Only reached early when the call ends under the generator.
        this.endlessEnded = signal.aborted;
      }
    }
    let sent = 0;
    for (let i = position === '' ? 0 : Number(position); i < this.logs.length; i++) {
      if (this.breakLogsAfter === sent) {
        this.breakLogsAfter = undefined;
        throw unavailable('the container service is not available');
      }
      const entry = this.logs[i];
      if (entry === undefined) continue;
      yield { output: encodeFrame(entry.stderr === true ? 2 : 1, Buffer.from(entry.text)), position: String(i + 1) };
      sent++;
      await Promise.resolve();
    }
  }

  /** Sends back what comes in; at the end of the input the process exits. */
  async *#attach(
    requests: AsyncIterable<container.AttachContainerRequest | container.StartExecRequest>,
  ): AsyncGenerator<container.StartExecResponse & { position: string }> {
    let name = '';
    for await (const { frame } of requests) {
      if (frame?.$case === 'start') {
        name = 'id' in frame.value ? frame.value.id : frame.value.name;
        if ('name' in frame.value) this.#find(name);
        if (this.dyingAttaches-- > 0) throw unavailable('going away');
        yield {
          frame: { $case: 'attached', value: { containerId: newId(), tty: this.attachTty, exitSequence: 0n } },
          position: '',
        };
      } else if (frame?.$case === 'stdin') {
        const text = Buffer.from(frame.value);
        this.stdin.set(name, (this.stdin.get(name) ?? '') + text.toString('latin1'));
        yield { frame: { $case: 'output', value: this.attachTty ? text : encodeFrame(1, text) }, position: '' };
      }
    }
    yield { frame: { $case: 'exited', value: { exitCode: 0 } }, position: '' };
  }

  /** As `#attach`, with positions that count the pieces. */
  async *#keptAttach(
    requests: AsyncIterable<container.AttachContainerRequest>,
  ): AsyncGenerator<container.AttachContainerResponse> {
    let at = 0;
    let taken = 0n;
    for await (const { frame } of requests) {
      if (frame?.$case === 'start') {
        const { resume, stdout } = frame.value;
        if (resume !== undefined) (stdout ? this.resumes : this.farewells).push(resume);
        at = Number(resume?.position ?? 0);
        const attached = { containerId: this.#find('web').id, tty: false, exitSequence: 7n };
        yield { frame: { $case: 'attached', value: attached }, position: String(at) };
      } else if (frame?.$case === 'stdin') {
        const text = Buffer.from(frame.value);
        const dies = this.diesAtInput?.text === text.toString() ? this.diesAtInput : undefined;
        if (dies !== undefined) this.diesAtInput = undefined;
        if (dies?.isTaken === false) throw unavailable('going away');
        taken += BigInt(text.length);
        yield { frame: { $case: 'stdinTaken', value: taken }, position: '' };
        yield { frame: { $case: 'output', value: encodeFrame(1, text) }, position: String(++at) };
        if (dies !== undefined) throw unavailable('going away');
      }
    }
    yield { frame: { $case: 'exited', value: { exitCode: 0 } }, position: '' };
  }

  #imageEntry(): ServiceEntry {
    const { manifests } = this;
    return serviceEntry(image.ImageServiceService, {
      watchImages: serverStream((_request, { signal }) => this.images.watch(signal)),
      listImages: unary(() =>
        Promise.resolve({ images: [...this.images.objects.values()], revision: this.images.revision }),
      ),
      pullImage: serverStream((request) => this.#pull(request)),
      loadImages: bidi((requests, { signal }) => this.archives.load(requests, signal)),
      saveImages: serverStream((request, { signal }) => this.archives.save(request, signal)),
      listImageManifests: serverStream(async function* ({ imageIds }: image.ListImageManifestsRequest) {
        for (const imageId of imageIds) yield { imageId, manifests: manifests.get(imageId) ?? [] };
        await Promise.resolve();
      }),
      tagImage: unary(({ name }) => {
        if (name === 'missing') throw notFound('No such image: missing:latest');
        return Promise.resolve({ revision: this.images.revision });
      }),
      removeImage: unary(({ name }) => {
        for (const object of this.images.objects.values()) {
          if (!object.repoTags.includes(name)) continue;
          return Promise.resolve({
            removed: [
              { what: { $case: 'untagged' as const, value: name } },
              { what: { $case: 'deleted' as const, value: object.id } },
            ],
            revision: this.images.delete(object.id),
          });
        }
        throw notFound(`No such image: ${name}`);
      }),
    });
  }

  async *#pull(request: image.PullImageRequest): AsyncGenerator<image.PullImageResponse> {
    this.pulls.push(request);
    const line = (part: Parameters<typeof image.Progress.fromPartial>[0]): image.Progress =>
      image.Progress.fromPartial(part);
    if (request.name === 'missing') throw notFound('pull access denied for missing, repository does not exist');
    yield {
      progress: [
        line({ id: request.tag, status: `Pulling from ${request.name}` }),
        line({ id: 'aaa', status: 'Pulling fs layer' }),
      ],
      revision: 0n,
    };
    if (request.name === 'broken') throw notFound('unexpected EOF');
    await Promise.resolve();
    yield {
      progress: [
        line({ id: 'aaa', status: 'Downloading', current: 50n, total: 100n, hasDetail: true }),
        line({ status: 'Status: Downloaded newer image for x' }),
      ],
      revision: this.images.put(
        'sha256:p',
        image.Image.fromPartial({ id: 'sha256:p', repoTags: [`${request.name}:${request.tag}`] }),
      ),
    };
  }

  #networkEntry(): ServiceEntry {
    return serviceEntry(network.NetworkServiceService, {
      watchNetworks: serverStream((_request, { signal }) => this.networks.watch(signal)),
      createNetwork: unary((request) => {
        const id = newId();
        const { name, driver, labels, options, ipam } = request;
        const revision = this.networks.put(
          id,
          network.Network.fromPartial({
            id,
            name,
            driver: driver === '' ? 'bridge' : driver,
            labels,
            options,
            ipam,
            enableIpv4: true,
          }),
        );
        return Promise.resolve({ id, warning: '', revision });
      }),
    });
  }

  #volumeEntry(): ServiceEntry {
    return serviceEntry(volume.VolumeServiceService, {
      watchVolumes: serverStream((_request, { signal }) => this.volumes.watch(signal)),
      createVolume: unary(({ name, labels, options }) => {
        const object = volume.Volume.fromPartial({
          name,
          driver: 'local',
          mountpoint: `/v/${name}/_data`,
          createdAt: timestampFromDate(new Date()),
          labels,
          options,
        });
        return Promise.resolve({ volume: object, revision: this.volumes.put(name, object) });
      }),
      removeVolume: unary(({ name }) => {
        if (!this.volumes.objects.has(name)) throw notFound(`get ${name}: no such volume`);
        return Promise.resolve({ revision: this.volumes.delete(name) });
      }),
    });
  }
}
