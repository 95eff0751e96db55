import { KeyedLocks } from '@flotilla/store';
import type { HybridClock } from '@flotilla/store';
import { invalidArgument, isEngineError, messageOf, notFound, permissionDenied } from '@flotilla/errors';
import type { network as proto } from '@flotilla/proto';
import type { Logger } from '@flotilla/log';
import { kernelFailure } from '../kernel/kernel.js';
import type { KernelCalls } from '../kernel/kernel.js';
import type { NetworkSettings } from '../settings.js';
import type { NetworkStore, Receipt } from '../store/network-store.js';
import type { NetworkRecord } from '../store/records.js';
import type { Allocations } from './allocations.js';
import { blankNetwork, predefinedNames } from './blank-network.js';
import { bridgeSpec } from './bridge-spec.js';
import { planDefaultBridge } from './default-bridge.js';
import { networkCreated, networkDestroyed } from './network-events.js';
import { NetworkPlanner } from './network-planner.js';
import { parentFailure, parentSpec } from './parent-options.js';
import { Subnets } from './subnets.js';

export interface NetworksDeps {
  store: NetworkStore;
  kernel: KernelCalls;
  allocations: Allocations;
  settings: NetworkSettings;
  clock: HybridClock;
  log: Logger;
}

const creation = 'creation';

/** Networks themselves: names, subnets, bridges. What containers have in them is `Sandboxes`' business. */
export class Networks {
  readonly #deps: NetworksDeps;
  readonly #locks = new KeyedLocks();
  readonly #subnets: Subnets;
  readonly #planner: NetworkPlanner;

  constructor(deps: NetworksDeps) {
    this.#deps = deps;
    this.#subnets = new Subnets(deps);
    this.#planner = new NetworkPlanner({ ...deps, subnets: this.#subnets });
  }

  /**
   * By full id, name or unique prefix of the id, in this order.
   *
   * @throws EngineError `notFound`, `invalidArgument` for a prefix of several
   */
  resolve(reference: string): NetworkRecord {
    const { store } = this.#deps;
    const exact = store.network(reference);
    if (exact !== undefined) return exact;
    const all = store.networks();
    const named = all.find((record) => record.name === reference);
    if (named !== undefined) return named;
    const prefixed = reference === '' ? [] : all.filter((record) => record.id.startsWith(reference));
    if (prefixed.length > 1)
      throw invalidArgument(`network ${reference} is ambiguous (${prefixed.length} matches found based on ID prefix)`);
    const [found] = prefixed;
    if (found === undefined) throw notFound(`network ${reference} not found`);
    return found;
  }

  /** The network named so, or undefined. */
  named(name: string): NetworkRecord | undefined {
    return this.#deps.store.networks().find((record) => record.name === name);
  }

  /**
   * @throws EngineError `invalidArgument` for names, subnets and options that cannot be, `alreadyExists` for a name in use,
   * `permissionDenied` for predefined names and for subnets that overlap another network's
   */
  async create(
    request: proto.CreateNetworkRequest,
    receipt: (record: NetworkRecord) => Receipt,
  ): Promise<{ record: NetworkRecord; revision: bigint }> {
    if (predefinedNames.includes(request.name)) {
      throw permissionDenied(`operation is not permitted on predefined ${request.name} network`);
    }
    if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(request.name)) {
      throw invalidArgument(
        request.name.trim() === ''
          ? 'invalid name: name is empty'
          : `invalid network name ${JSON.stringify(request.name)}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed`,
      );
    }
    return await this.#locks.run(creation, async () => {
      const record = await this.#planner.plan(request);
      const revision = await this.#establish(record, receipt(record));
      return { record, revision };
    });
  }

  /** @throws EngineError `permissionDenied` for predefined networks and while endpoints are active */
  async remove(reference: string, receipt: Receipt): Promise<bigint> {
    const record = this.resolve(reference);
    if (record.predefined) throw permissionDenied(`${record.name} is a pre-defined network and cannot be removed`);
    // Who makes a network of the same bridge, parent or configuration meanwhile must not lose it again.
    return await this.#locks.run(creation, async () => {
      if (this.#deps.store.network(record.id) === undefined) throw notFound(`network ${reference} not found`);
      if (record.configOnly && this.#deps.store.networks().some(({ configFrom }) => configFrom === record.name)) {
        throw permissionDenied(
          `error while removing network: configuration network ${JSON.stringify(record.name)} is in use`,
        );
      }
      // Nothing may wait between this and the first step of the removal: endpoints are taken without a lock.
      if (this.#deps.allocations.isHeld(record.id)) throw permissionDenied(this.#activeEndpoints(record));
      return await this.#tearDown(record, receipt);
    });
  }

  /** Remove every user-defined network that nobody is in and that matches. */
  async prune(filter: {
    untilNs?: bigint;
    matchesLabels: (labels: Record<string, string>) => boolean;
  }): Promise<{ removed: string[]; revision: bigint }> {
    const { store, allocations, log } = this.#deps;
    const removed: string[] = [];
    let revision = store.revision;
    for (const record of store.networks()) {
      if (
        record.predefined ||
        record.configOnly ||
        allocations.isHeld(record.id) ||
        !filter.matchesLabels(record.labels)
      )
        continue;
      if (filter.untilNs !== undefined && BigInt(record.createdAtNs) > filter.untilNs) continue;
      try {
        revision = await this.remove(record.id, () => undefined);
        removed.push(record.name);
      } catch (error) {
        log.info({ network: record.name, reason: messageOf(error) }, 'network not pruned');
      }
    }
    return { removed, revision };
  }

  /** Make bridge, host and none where they are missing, and adapt the bridge to the settings. Before anything else. */
  async ensurePredefined(): Promise<void> {
    const { store, settings, clock } = this.#deps;
    const put: NetworkRecord[] = [];
    for (const [name, driver] of [
      ['host', 'host'],
      ['none', 'null'],
    ] as const) {
      if (this.named(name) === undefined) put.push(blankNetwork(name, driver, clock));
    }
    const existing = this.named('bridge');
    const isInUse = store.sandboxes().some((box) => box.endpoints.some((one) => one.networkId === existing?.id));
    if (settings.bridge === 'none') {
      if (existing !== undefined && !isInUse) await store.commit({ removeNetworks: [existing] });
    } else if (!isInUse) {
      const wanted = await planDefaultBridge(existing, { ...this.#deps, subnets: this.#subnets });
      if (JSON.stringify(wanted) !== JSON.stringify(existing)) put.push(wanted);
    }
    if (put.length > 0) await store.commit({ putNetworks: put });
  }

  /**
   * Record and build at the same time: what a crash leaves of either without the other is put right at the next start.
   */
  async #establish(record: NetworkRecord, receipt: Receipt): Promise<bigint> {
    const { store, allocations } = this.#deps;
    const [built, written] = await Promise.allSettled([
      this.#build(record),
      store.commit({ putNetworks: [record], events: [networkCreated(record)], receipt }),
    ]);
    if (built.status === 'rejected') {
      await this.#demolish(record).catch(() => undefined);
      if (written.status === 'fulfilled')
        await store.commit({ removeNetworks: [record], events: [networkDestroyed(record)] });
      if (isEngineError(built.reason)) throw built.reason;
      throw kernelFailure(`cannot create network ${record.name}`, built.reason);
    }
    if (written.status === 'rejected') {
      await this.#demolish(record);
      throw written.reason;
    }
    allocations.addNetwork(record);
    return written.value;
  }

  /** What a network has in the kernel. */
  async #build(record: NetworkRecord): Promise<void> {
    const { kernel } = this.#deps;
    const bridge = bridgeSpec(record);
    if (bridge !== undefined) await kernel.call('ensureBridge', bridge);
    const parent = parentSpec(record);
    if (parent === undefined || record.parent === undefined) return;
    const outcome = await kernel.call('ensureParent', parent);
    if (outcome.kind !== 'ready') throw parentFailure(record.parent, outcome);
  }

  async #demolish(record: NetworkRecord): Promise<void> {
    const { kernel, store } = this.#deps;
    const bridge = bridgeSpec(record);
    if (bridge !== undefined) await kernel.call('removeBridge', bridge);
    const { parent } = record;
    const isShared = store.networks().some((other) => other.id !== record.id && other.parent?.name === parent?.name);
    if (parent !== undefined && !isShared) await kernel.call('removeParent', parent.name);
  }

  async #tearDown(record: NetworkRecord, receipt: Receipt): Promise<bigint> {
    const { store, allocations } = this.#deps;
    allocations.removeNetwork(record.id); // nobody gets in from here on
    try {
      const events = record.configOnly ? [] : [networkDestroyed(record)]; // dockerd tells of their creation only
      const revision = await store.commit({ removeNetworks: [record], events, receipt });
      await this.#demolish(record);
      return revision;
    } catch (error) {
      if (store.network(record.id) !== undefined) allocations.addNetwork(record);
      throw error;
    }
  }

  #activeEndpoints(record: NetworkRecord): string {
    const endpoints = this.#deps.store
      .sandboxes()
      .flatMap((box) =>
        box.endpoints
          .filter((one) => one.networkId === record.id)
          .map((one) => `name:${JSON.stringify(box.containerName)} id:${JSON.stringify(one.id.slice(0, 12))}`),
      );
    return `error while removing network: network ${record.name} has active endpoints (${endpoints.join(', ')})`;
  }
}
