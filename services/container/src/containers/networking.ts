import { invalidArgument, permissionDenied } from '@flotilla/errors';
import { network, type container } from '@flotilla/proto';
import { renderHosts, writeEtcFiles } from '../rootfs/etc-files.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { linkedNow } from './links.js';
import { containerDir } from './settings.js';
import { isLive } from './state.js';

/** Attaches containers to networks and detaches them, running or not. The caller holds the container's lock. */
export class Networking {
  readonly #context: ContainerContext;

  constructor(context: ContainerContext) {
    this.#context = context;
  }

  /** @throws EngineError `permissionDenied`, `invalidArgument`, `notFound` as the network service says. */
  async connect(record: ContainerRecord, endpoint: network.EndpointRequest): Promise<bigint> {
    const { container: shown, internals } = record;
    const plan = requireNetworks(record);
    const { networks } = this.#context.peers;
    const checked = await networks.check([endpoint], []);
    const name = checked.networkNames[0] ?? endpoint.network;
    const networkId = checked.networkIds[0] ?? '';
    const present = shown.networkSettings.networks.find((one) => one.networkId === networkId);
    if (present !== undefined && isLive(stateOf(record)))
      throw permissionDenied(`endpoint with name ${shown.name} already exists in network ${name}`);
    const request = { ...endpoint, network: name };
    const settings: container.EndpointSettings = { network: name, networkId, request };
    if (isLive(stateOf(record))) {
      const connected = await networks.connect(shown.id, request);
      settings.endpoint = connected.endpoint;
      await writeEtcFiles(containerDir(this.#context.settings, shown.id), {
        hosts: renderHosts([...linkedNow(this.#context.store, record).hosts, ...connected.hosts]),
        hostname: shown.config.hostname,
        resolvConf: connected.resolvConf,
      });
    }
    return this.#context.store.commit((batch) =>
      batch.put({
        container: {
          ...shown,
          networkSettings: {
            ...shown.networkSettings,
            networks: placed(shown.networkSettings.networks, present, settings),
          },
        },
        internals: {
          ...internals,
          network: {
            kind: 'networks',
            endpoints: placed(plan.endpoints, endpointOf(plan.endpoints, present), request),
          },
        },
      }),
    );
  }

  /** @throws EngineError `invalidArgument` when the container is not on that network. */
  async disconnect(record: ContainerRecord, nameOrId: string, force: boolean): Promise<bigint> {
    const { container: shown, internals } = record;
    const plan = requireNetworks(record);
    const current = shown.networkSettings.networks.find(
      (settings) => settings.network === nameOrId || (nameOrId.length >= 4 && settings.networkId.startsWith(nameOrId)),
    );
    if (current === undefined) {
      if (!isLive(stateOf(record)))
        throw invalidArgument(`container ${shown.id} is not connected to the network ${nameOrId}`);
      const asked = network.EndpointRequest.fromPartial({ network: nameOrId });
      const { networkNames } = await this.#context.peers.networks.check([asked], []); // or there is no such network
      throw invalidArgument(`container ${shown.id} is not connected to network ${networkNames[0] ?? nameOrId}`);
    }
    if (isLive(stateOf(record))) await this.#context.peers.networks.disconnect(shown.id, current.network, force);
    return this.#context.store.commit((batch) =>
      batch.put({
        container: {
          ...shown,
          networkSettings: {
            ...shown.networkSettings,
            networks: shown.networkSettings.networks.filter((settings) => settings !== current),
          },
        },
        internals: {
          ...internals,
          network: {
            kind: 'networks',
            endpoints: plan.endpoints.filter((one) => one !== endpointOf(plan.endpoints, current)),
          },
        },
      }),
    );
  }
}

/** What was asked for on a network that the container is on. */
function endpointOf(
  endpoints: readonly network.EndpointRequest[],
  settings: container.EndpointSettings | undefined,
): network.EndpointRequest | undefined {
  return endpoints.find((one) => one.network === settings?.network || one.network === settings?.request?.network);
}

/** With `item` in the place of `old`, or at the end: a stopped container takes other settings for a network it is on. */
function placed<T>(items: readonly T[], old: T | undefined, item: T): T[] {
  return old === undefined ? [...items, item] : items.map((one) => (one === old ? item : one));
}

function requireNetworks(record: ContainerRecord): { kind: 'networks'; endpoints: network.EndpointRequest[] } {
  const plan = record.internals.network;
  switch (plan.kind) {
    case 'networks':
      return plan;
    case 'host':
      throw invalidArgument('container cannot be disconnected from host network or connected to host network');
    case 'container':
      throw invalidArgument(
        'container sharing network namespace with another container or host cannot be connected to any other network',
      );
    case 'none':
      throw invalidArgument(
        'container cannot be connected to multiple networks with one of the networks in private (none) mode',
      );
  }
}
