import { createHash } from 'node:crypto';
import { conflict, internal, invalidArgument, isEngineError, messageOf, permissionDenied } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { network as proto } from '@flotilla/proto';
import { KeyedLocks } from '@flotilla/store';
import type { EngineEvent } from '@flotilla/store';
import type { NameIndex } from '../dns/name-index.js';
import type { Resolver } from '../dns/resolver.js';
import { kernelFailure } from '../kernel/kernel.js';
import type { KernelCalls } from '../kernel/kernel.js';
import type { KernelOperations } from '../kernel/kernel-operations.js';
import type { Allocations } from '../networks/allocations.js';
import { containerConnected, containerDisconnected } from '../networks/network-events.js';
import type { Networks } from '../networks/networks.js';
import type { HostPorts } from '../ports/host-ports.js';
import { portWishes } from '../ports/port-wishes.js';
import type { PortWish } from '../ports/port-wishes.js';
import type { NetworkStore, Receipt } from '../store/network-store.js';
import type { EndpointRecord, NetworkRecord, SandboxRecord } from '../store/records.js';
import { checkEndpointRequest, dnsNames, planEndpoint } from './endpoint-plan.js';
import { wantedInterfaceName } from './endpoint-options.js';
import { chooseGateway, choosePortTarget, publishingEndpoint } from './gateway-choice.js';
import { extraHost } from './hosts-entries.js';
import { candidatesOf, interfaceSpec, publicationsOf, sandboxSpec, sandboxTraces } from './sandbox-spec.js';
import { splitRouted } from './routed-ports.js';
import { SandboxRuntime, chooseDnsPorts } from './sandbox-runtime.js';

export interface SandboxesDeps {
  store: NetworkStore;
  kernel: KernelCalls;
  allocations: Allocations;
  networks: Networks;
  hostPorts: HostPorts;
  names: NameIndex;
  resolver: Resolver;
  /** What `host-gateway` means. */
  hostGateways: () => string[];
  log: Logger;
}

export interface PreparedSandbox {
  record: SandboxRecord;
  revision: bigint;
}

type PreparedKernel = ReturnType<KernelOperations['prepareSandbox']>;

/** A sandbox with an endpoint that was added to it. */
export interface ConnectedSandbox {
  record: SandboxRecord;
  endpoint: EndpointRecord;
}

/** A sandbox that has just been prepared may belong to a container that a list made a moment ago does not hold. */
const reconcileGraceMs = 2000;

/** The network side of running containers: namespaces, endpoints, published ports, DNS. One lock per container. */
export class Sandboxes {
  readonly #deps: SandboxesDeps;
  readonly #locks = new KeyedLocks();
  readonly #runtimes = new Map<string, SandboxRuntime>();
  readonly #networkOf: (id: string) => NetworkRecord | undefined;

  constructor(deps: SandboxesDeps) {
    this.#deps = deps;
    this.#networkOf = (id) => deps.store.network(id);
  }

  /**
   * Networks and settings that a container may use, checked without holding anything.
   *
   * @throws EngineError `notFound`, `invalidArgument`
   */
  check(request: proto.CheckSandboxRequest): NetworkRecord[] {
    portWishes(request.ports, { publishAll: false, exposedPorts: [] });
    return request.endpoints.map((endpoint) => {
      const record = this.#usable(endpoint.network);
      checkEndpointRequest(endpoint, record);
      return record;
    });
  }

  /**
   * Make all that a container needs to run. Repeating the same request answers the same; another request for a container
   * that has a sandbox replaces it.
   *
   * @throws EngineError; nothing stays then
   */
  async prepare(request: proto.PrepareSandboxRequest): Promise<PreparedSandbox> {
    if (!/^[0-9a-f]{64}$/.test(request.containerId))
      throw invalidArgument(`invalid container id ${JSON.stringify(request.containerId)}`);
    return await this.#locks.run(request.containerId, async () => {
      const requestHash = createHash('sha256')
        .update(proto.PrepareSandboxRequest.encode(request).finish())
        .digest('hex');
      const existing = this.#deps.store.sandbox(request.containerId);
      if (existing?.requestHash === requestHash) return { record: existing, revision: this.#deps.store.revision };
      if (existing !== undefined) await this.#release(existing);
      return await this.#prepareNew(request, requestHash);
    });
  }

  /** Undo `prepare`; a container without a sandbox is fine. */
  async release(containerId: string): Promise<bigint> {
    return await this.#locks.run(containerId, async () => {
      const record = this.#deps.store.sandbox(containerId);
      return record === undefined ? this.#deps.store.revision : await this.#release(record);
    });
  }

  /** Release the sandboxes of containers that no longer run. */
  async reconcile(liveContainerIds: readonly string[]): Promise<string[]> {
    const live = new Set(liveContainerIds);
    const released: string[] = [];
    for (const { containerId, preparedAtMs } of this.#deps.store.sandboxes()) {
      if (live.has(containerId) || Date.now() - preparedAtMs < reconcileGraceMs) continue;
      await this.release(containerId);
      released.push(containerId);
    }
    return released;
  }

  /** @throws EngineError `conflict` when the container has no sandbox, `permissionDenied` when it is in the network already */
  async connect(
    containerId: string,
    request: proto.EndpointRequest,
    receipt: (connected: ConnectedSandbox) => Receipt,
  ): Promise<PreparedSandbox & ConnectedSandbox> {
    return await this.#locks.run(containerId, async () => {
      const before = this.#running(containerId);
      if (before.isHostMode) {
        throw invalidArgument(
          'container sharing network namespace with another container or host cannot be connected to any other network',
        );
      }
      const network = this.#usable(request.network);
      if (network.driver === 'host')
        throw invalidArgument('container cannot be disconnected from host network or connected to host network');
      const isIn = (driver: string): boolean =>
        before.endpoints.some((endpoint) => this.#networkOf(endpoint.networkId)?.driver === driver);
      if (network.driver === 'null' || isIn('null')) {
        throw invalidArgument(
          'container cannot be connected to multiple networks with one of the networks in private (none) mode',
        );
      }
      if (before.endpoints.some((endpoint) => endpoint.networkId === network.id)) {
        throw permissionDenied(`endpoint with name ${before.containerName} already exists in network ${network.name}`);
      }
      const used = before.endpoints.map((endpoint) => endpoint.interfaceName);
      const endpoint = planEndpoint(request, network, before, { used, reserved: [] }, this.#deps.allocations);
      const after = this.#withDns({ ...before, endpoints: [...before.endpoints, endpoint] });
      try {
        const attached = interfaceSpec(endpoint, network);
        if (attached !== undefined)
          await this.#deps.kernel.call('attachInterface', { containerId, interface: attached });
        const events = [containerConnected(network, containerId)];
        const revision = await this.#move(before, after, events, receipt({ record: after, endpoint }));
        return { record: after, endpoint, revision };
      } catch (error) {
        await this.#detach(containerId, endpoint, network);
        this.#deps.allocations.release(endpoint);
        throw isEngineError(error)
          ? error
          : kernelFailure(`cannot connect container to network ${network.name}`, error);
      }
    });
  }

  /** @throws EngineError `conflict` when the container has no sandbox or is not in the network */
  async disconnect(containerId: string, reference: string, receipt: Receipt): Promise<bigint> {
    return await this.#locks.run(containerId, async () => {
      const before = this.#running(containerId);
      const network = this.#deps.networks.resolve(reference);
      const endpoint = before.endpoints.find((one) => one.networkId === network.id);
      if (before.isHostMode)
        throw invalidArgument('container cannot be disconnected from host network or connected to host network');
      if (endpoint === undefined)
        throw conflict(`container ${containerId} is not connected to network ${network.name}`);
      const after = { ...before, endpoints: before.endpoints.filter((one) => one !== endpoint) };
      const revision = await this.#move(before, after, [containerDisconnected(network, containerId)], receipt);
      await this.#detach(containerId, endpoint, network);
      this.#deps.allocations.release(endpoint);
      return revision;
    });
  }

  /** A running container has another name: DNS follows. */
  async rename(containerId: string, containerName: string): Promise<PreparedSandbox> {
    return await this.#locks.run(containerId, async () => {
      const before = this.#running(containerId);
      const renamed = { ...before, containerName };
      const record: SandboxRecord = {
        ...renamed,
        endpoints: before.endpoints.map((endpoint) => {
          const network = this.#networkOf(endpoint.networkId);
          return network === undefined
            ? endpoint
            : { ...endpoint, dnsNames: dnsNames(renamed, endpoint.aliases, network) };
        }),
      };
      const revision = await this.#deps.store.commit({ putSandboxes: [record] });
      this.#deps.names.set(record);
      return { record, revision };
    });
  }

  /** After a start: forget sandboxes that the kernel does not have whole, serve the others again. */
  async restore(incomplete: readonly string[]): Promise<void> {
    const { store, hostPorts, names, allocations, log } = this.#deps;
    const gone = store.sandboxes().filter(({ containerId }) => incomplete.includes(containerId));
    if (gone.length > 0) {
      for (const endpoint of gone.flatMap((sandbox) => sandbox.endpoints)) allocations.release(endpoint);
      await store.commit({
        removeSandboxes: gone,
        events: gone.flatMap((sandbox) => this.#events(sandbox, containerDisconnected)),
      });
      log.info({ containerIds: gone.map(({ containerId }) => containerId) }, 'sandboxes without a namespace forgotten');
    }
    for (const sandbox of store.sandboxes()) {
      const runtime = new SandboxRuntime(
        sandbox.containerId,
        choosePortTarget(candidatesOf(sandbox, this.#networkOf)),
        log,
      );
      this.#runtimes.set(sandbox.containerId, runtime);
      names.set(sandbox);
      await runtime.restorePorts(hostPorts, sandbox.ports);
      if (sandbox.dnsPorts !== undefined) await this.#restoreDns(sandbox, runtime);
    }
  }

  /** Let go of what this process holds; the kernel's part stays. */
  close(): void {
    for (const runtime of this.#runtimes.values()) runtime.close();
    this.#runtimes.clear();
  }

  async #prepareNew(request: proto.PrepareSandboxRequest, requestHash: string): Promise<PreparedSandbox> {
    for (const entry of request.extraHosts) extraHost(entry, this.#deps.hostGateways());
    const wishes = portWishes(request.ports, request);
    const record = this.#withDns(this.#plan(request, requestHash));
    const candidates = candidatesOf(record, this.#networkOf);
    const runtime = new SandboxRuntime(record.containerId, choosePortTarget(candidates), this.#deps.log);
    try {
      record.ports = await this.#holdPorts(record, runtime, wishes);
      const revision = await this.#establish(record, runtime, request.adoptedNamespacePath);
      this.#runtimes.set(record.containerId, runtime);
      this.#deps.names.set(record);
      return { record, revision };
    } catch (error) {
      runtime.close();
      for (const endpoint of record.endpoints) this.#deps.allocations.release(endpoint);
      throw error;
    }
  }

  /** Allocate the endpoints, synchronously. */
  #plan(request: proto.PrepareSandboxRequest, requestHash: string): SandboxRecord {
    const { allocations } = this.#deps;
    const endpoints: EndpointRecord[] = [];
    const requests = this.#wantedEndpoints(request);
    const hasNoIpv6 = request.sysctls['net.ipv6.conf.all.disable_ipv6'] === '1' ? { hasNoIpv6: true as const } : {};
    const reserved = requests.flatMap(({ driverOptions }) => wantedInterfaceName(driverOptions) ?? []);
    try {
      for (const wanted of requests) {
        const network = this.#usable(wanted.network);
        if (endpoints.some((endpoint) => endpoint.networkId === network.id)) {
          throw invalidArgument(`network ${network.name} is asked for twice`);
        }
        const used = endpoints.map((endpoint) => endpoint.interfaceName);
        endpoints.push(planEndpoint(wanted, network, { ...request, ...hasNoIpv6 }, { used, reserved }, allocations));
      }
    } catch (error) {
      for (const endpoint of endpoints) allocations.release(endpoint);
      throw error;
    }
    const { containerId, containerName, hostname, domainName, dnsServers, dnsSearch, dnsOptions, extraHosts } = request;
    return {
      ...{ containerId, containerName, hostname, domainName, dnsServers, dnsSearch, dnsOptions, extraHosts },
      isHostMode: request.hostMode,
      ...hasNoIpv6,
      endpoints,
      ports: [],
      requestHash,
      preparedAtMs: Date.now(),
    };
  }

  /** Modes host and none have an endpoint too, on the network of that name. */
  #wantedEndpoints(request: proto.PrepareSandboxRequest): proto.EndpointRequest[] {
    if (request.endpoints.length > 0) return request.endpoints;
    return [proto.EndpointRequest.fromPartial({ network: request.hostMode ? 'host' : 'none' })];
  }

  async #holdPorts(
    record: SandboxRecord,
    runtime: SandboxRuntime,
    wishes: readonly PortWish[],
  ): Promise<SandboxRecord['ports']> {
    const candidates = candidatesOf(record, this.#networkOf);
    const publisher = publishingEndpoint(candidates);
    if (publisher === undefined || wishes.length === 0) return []; // nothing leads outside: dockerd publishes nothing then either
    const hostIp = publisher.network.bridge?.hostBindingIpv4 ?? '';
    try {
      const { held, routed } = splitRouted(wishes, candidates);
      return [...(await runtime.holdPorts(this.#deps.hostPorts, held, hostIp)), ...routed];
    } catch (error) {
      const prefix = `driver failed programming external connectivity on endpoint ${record.containerName} (${publisher.endpoint.id})`;
      throw internal(`${prefix}: ${messageOf(error)}`, { cause: error });
    }
  }

  /**
   * Record and build at the same time. Either without the other after a crash is recognised at the next start: kernel state
   * that nobody has recorded is removed, a record whose set-up did not finish is forgotten.
   */
  async #establish(record: SandboxRecord, runtime: SandboxRuntime, adopted: string): Promise<bigint> {
    const { kernel, store, resolver } = this.#deps;
    const spec = sandboxSpec(record, this.#networkOf);
    const [built, written] = await Promise.allSettled([
      spec === undefined
        ? Promise.resolve<PreparedKernel>({})
        : kernel.call('prepareSandbox', { ...spec, ...(adopted === '' ? {} : { adoptedNamespacePath: adopted }) }),
      store.commit({ putSandboxes: [record], events: this.#events(record, containerConnected) }),
    ]);
    if (built.status === 'fulfilled' && built.value.dns !== undefined) runtime.serveDns(built.value.dns, resolver);
    if (built.status === 'fulfilled' && written.status === 'fulfilled') return written.value;
    if (built.status === 'fulfilled') {
      runtime.closeDns();
      await this.#releaseKernel(record);
    }
    if (written.status === 'fulfilled') {
      await store.commit({ removeSandboxes: [record], events: this.#events(record, containerDisconnected) });
    }
    if (written.status === 'rejected') throw written.reason;
    throw kernelFailure(
      'failed to set up the network namespace',
      built.status === 'rejected' ? built.reason : undefined,
    );
  }

  async #release(record: SandboxRecord): Promise<bigint> {
    const { store, names, allocations } = this.#deps;
    const runtime = this.#runtimes.get(record.containerId);
    this.#runtimes.delete(record.containerId);
    names.delete(record.containerId);
    runtime?.closeDns();
    const [revision] = await Promise.all([
      store.commit({ removeSandboxes: [record], events: this.#events(record, containerDisconnected) }),
      this.#releaseKernel(record),
    ]);
    runtime?.releasePorts();
    for (const endpoint of record.endpoints) allocations.release(endpoint);
    return revision;
  }

  /** What cannot be removed now is removed at the next start, when no record of it is found. */
  async #releaseKernel(record: SandboxRecord): Promise<void> {
    if (record.isHostMode) return;
    try {
      await this.#deps.kernel.call('releaseSandbox', sandboxTraces(record, this.#networkOf));
    } catch (err) {
      this.#deps.log.error({ containerId: record.containerId, err }, 'sandbox not removed from the kernel');
    }
  }

  /** Make gateway, published ports, DNS and record follow a change of the endpoints of a running sandbox. */
  async #move(before: SandboxRecord, after: SandboxRecord, events: EngineEvent[], receipt: Receipt): Promise<bigint> {
    const { kernel, store, names, resolver } = this.#deps;
    const { containerId } = after;
    const runtime = this.#runtimes.get(containerId);
    const oldCandidates = candidatesOf(before, this.#networkOf);
    const newCandidates = candidatesOf(after, this.#networkOf);
    const oldGateway = chooseGateway(oldCandidates);
    const gateway = chooseGateway(newCandidates);
    if (JSON.stringify(oldGateway) !== JSON.stringify(gateway)) {
      await kernel.call('setGateway', { containerId, ...(gateway === undefined ? {} : { gateway }) });
    }
    const target = choosePortTarget(newCandidates);
    const remove = publicationsOf(before.ports, oldCandidates);
    const add = publicationsOf(after.ports, newCandidates);
    if (JSON.stringify(remove) !== JSON.stringify(add)) await kernel.call('replacePublications', { remove, add });
    runtime?.retarget(target);
    if (after.dnsPorts !== undefined && runtime?.hasDns === false) {
      runtime.serveDns(await kernel.call('openDns', { containerId, ports: after.dnsPorts, hasRules: false }), resolver);
    }
    const revision = await store.commit({ putSandboxes: [after], events, receipt });
    names.set(after);
    return revision;
  }

  async #detach(containerId: string, endpoint: EndpointRecord, network: NetworkRecord): Promise<void> {
    const detached = interfaceSpec(endpoint, network);
    if (detached === undefined) return;
    try {
      await this.#deps.kernel.call('detachInterface', { containerId, interface: detached });
    } catch (err) {
      this.#deps.log.error({ containerId, network: network.name, err }, 'interface not removed');
    }
  }

  async #restoreDns(sandbox: SandboxRecord, runtime: SandboxRuntime): Promise<void> {
    const { kernel, resolver, store, log } = this.#deps;
    const { containerId, dnsPorts } = sandbox;
    if (dnsPorts === undefined) return;
    try {
      runtime.serveDns(await kernel.call('openDns', { containerId, ports: dnsPorts, hasRules: true }), resolver);
    } catch (err) {
      log.info({ containerId, err }, 'dns ports taken inside the container, moving');
      try {
        const ports = chooseDnsPorts();
        runtime.serveDns(await kernel.call('openDns', { containerId, ports, hasRules: false }), resolver);
        await store.commit({ putSandboxes: [{ ...sandbox, dnsPorts: ports }] });
      } catch (error) {
        log.error({ containerId, err: error }, 'dns of a container not restored');
      }
    }
  }

  /** A sandbox on a user-defined network has a name server. */
  #withDns(record: SandboxRecord): SandboxRecord {
    if (record.dnsPorts !== undefined || !record.endpoints.some((endpoint) => this.#hasNames(endpoint))) return record;
    return { ...record, dnsPorts: chooseDnsPorts() };
  }

  #hasNames(endpoint: EndpointRecord): boolean {
    return this.#networkOf(endpoint.networkId)?.predefined === false;
  }

  #running(containerId: string): SandboxRecord {
    const record = this.#deps.store.sandbox(containerId);
    if (record === undefined) throw conflict(`container ${containerId} is not running`);
    return record;
  }

  #usable(reference: string): NetworkRecord {
    const record = this.#deps.networks.resolve(reference === 'default' ? 'bridge' : reference);
    if (record.configOnly) throw permissionDenied('cannot create endpoint on configuration-only network');
    return record;
  }

  #events(record: SandboxRecord, event: (network: NetworkRecord, containerId: string) => EngineEvent): EngineEvent[] {
    return candidatesOf(record, this.#networkOf).map(({ network }) => event(network, record.containerId));
  }
}
