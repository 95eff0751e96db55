import { randomBytes } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { hostname as machineName } from 'node:os';
import { join } from 'node:path';
import { internal, invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import { container, type image, network } from '@flotilla/proto';
import pLimit from 'p-limit';
import type { ContainerInternals, ShownContainer } from '../store/container-record.js';
import { neverStarted, toStatus } from '../store/container-record.js';
import { askedProfile } from '../apparmor/apparmor.js';
import { commandLine, mergeConfig } from './config-merge.js';
import { type ContainerContext, timestampNow } from './context.js';
import { containerCreated } from './events.js';
import { hasLegacyLinks, type Link } from './link-plan.js';
import { planLinks, shownLinks } from './links.js';
import { completeLogConfig, logSinkOf } from './log-sink.js';
import { inheritMounts, leasedName, type PlannedImage, type PlannedMount, planMounts } from './mount-plan.js';
import { generateContainerName, parseContainerName } from './names.js';
import { type NetworkPlan, normalizeNetworkMode, planNetworks } from './network-plan.js';
import { planPorts } from './port-plan.js';
import { imagePinPath } from './prepare-run.js';
import { parseRestartPolicy } from './restart-policy.js';
import { containerDir, type ContainerSettings } from './settings.js';
import { validateConfig, validateHostConfig } from './validate-config.js';
import { validateResources } from './validate-resources.js';
import { validateUserNamespace, wantsUserNamespace } from './validate-user-namespace.js';

/** Checked settings of a container to be, before its image is known. */
interface Draft {
  id: string;
  name: string;
  request: container.CreateContainerRequest;
  config: container.ContainerConfig;
  hostConfig: container.HostConfig;
  network: NetworkPlan;
  /** Links of the default bridge. */
  links: Link[];
  inherited: PlannedMount[];
  /** Names or ids of the images that are mounted, none twice. */
  mountedImages: string[];
  userNamespace: ContainerSettings['userNamespace'];
  warnings: string[];
}

/** Makes containers: everything is checked first, then layer and volume references are taken, and one batch makes it visible. */
export class Creator {
  readonly #context: ContainerContext;

  constructor(context: ContainerContext) {
    this.#context = context;
  }

  /**
   * Create a container. After a failure (or a crash, by recovery) nothing of it stays.
   *
   * @throws EngineError `invalidArgument`, `alreadyExists` for a name in use, `notFound` for an image or a network.
   */
  async create(
    request: container.CreateContainerRequest,
    requestId: string,
  ): Promise<container.CreateContainerResponse> {
    const draft = this.#draft(request);
    return this.#context.holderBarrier.pass(draft.id, async () => {
      const { store } = this.#context;
      store.reserveName(draft.name, draft.id);
      try {
        return await this.#make(draft, requestId);
      } catch (error) {
        await this.#undo(draft);
        throw error;
      }
    });
  }

  #draft(request: container.CreateContainerRequest): Draft {
    const { settings, store } = this.#context;
    if (request.config === undefined) throw invalidArgument('config cannot be empty in order to create a container');
    const config = request.config;
    const hostConfig = completeHostConfig(request.hostConfig ?? container.HostConfig.fromPartial({}), settings);
    const id = newId();
    const name =
      request.name === ''
        ? generateContainerName((candidate) => store.isNameTaken(candidate))
        : parseContainerName(request.name);
    validateConfig(config);
    validateHostConfig(config, hostConfig, new Set(settings.runtimes.keys()));
    const userNamespace = wantsUserNamespace(hostConfig) ? settings.userNamespace : undefined;
    if (userNamespace !== undefined) validateUserNamespace(hostConfig);
    const resources = hostConfig.resources ?? container.Resources.fromPartial({});
    const warnings = validateResources(resources, settings.machine);
    const isLegacy = hasLegacyLinks(hostConfig.networkMode);
    const plan = planNetworks(config, hostConfig.networkMode, isLegacy ? [] : hostConfig.links, request.endpoints);
    const links = isLegacy ? planLinks(store, hostConfig.links) : [];
    if (isLegacy) hostConfig.links = shownLinks(store, name, links);
    if (plan.kind === 'host' && hostConfig.portBindings.length > 0) {
      warnings.push('Published ports are discarded when using host network mode');
    }
    if (plan.kind === 'container') {
      const { target } = plan;
      plan.target = namedByRequest(() => store.resolve(target)).container.id;
    }
    hostConfig.ipcMode = this.#joined(hostConfig.ipcMode);
    hostConfig.pidMode = this.#joined(hostConfig.pidMode);
    const inherited = hostConfig.volumesFrom.flatMap((from) => this.#inherit(from));
    // Binds that could never work are refused before anything is held; the image's volumes come later.
    const planned = planMounts(hostConfig, config.volumes, inherited);
    const mountedImages = [...new Set(planned.flatMap((mount) => (mount.type === 'image' ? leasedName(mount) : [])))];
    return {
      id,
      name,
      request,
      config,
      hostConfig,
      network: plan,
      links,
      inherited,
      mountedImages,
      userNamespace,
      warnings,
    };
  }

  /** `container:x` by id, so that it means the same after a change of names. */
  #joined(mode: string): string {
    const [kind, name] = [mode.slice(0, 'container:'.length), mode.slice('container:'.length)];
    return kind === 'container:' ? kind + namedByRequest(() => this.#context.store.resolve(name)).container.id : mode;
  }

  #inherit(from: string): PlannedMount[] {
    const [name = '', mode = ''] = from.split(':');
    if (name === '') throw invalidArgument(`invalid volumes-from specification: ${from}`);
    const { container, internals } = namedByRequest(() => this.#context.store.resolve(name));
    return inheritMounts(container.id, internals.mounts, mode);
  }

  async #make(draft: Draft, requestId: string): Promise<container.CreateContainerResponse> {
    const { store, peers } = this.#context;
    const holder = { containerId: draft.id, containerName: draft.name };
    const work = [
      peers.images.prepareLayer({
        holder,
        image: draft.config.image,
        platform: draft.request.platform,
        storageOptions: draft.hostConfig.storageOpt,
        mountedImages: draft.mountedImages,
      }),
      this.#checkNetworks(draft),
      checkBindSources(draft.hostConfig.mounts),
      store.commit((batch) => batch.put(this.#reservation(draft))),
    ] as const;
    // A failure is thrown only when all have come to an end, so that nothing is made any more while it is undone.
    await Promise.allSettled(work);
    const [layer, checked] = await Promise.all(work);
    const config = mergeConfig(draft.config, layer.image?.config);
    if (config.workingDir !== '' && !config.workingDir.startsWith('/')) config.workingDir = `/${config.workingDir}`;
    if (config.hostname === '' && draft.network.kind !== 'container') {
      const usesMachine = draft.network.kind === 'host' || draft.hostConfig.utsMode === 'host';
      config.hostname = usesMachine ? machineName() : draft.id.slice(0, 12);
    }
    const planned = planMounts(draft.hostConfig, config.volumes, draft.inherited);
    const leased = new Map(draft.mountedImages.map((image, at) => [image, layer.mountedImages[at]]));
    const { mounts, points } = await this.#acquireSources(draft, planned, leased);
    const record = this.#record(draft, config, layer, checked, mounts, points);
    const warnings = [...draft.warnings, ...layer.warnings, ...(checked?.warnings ?? [])];
    const revision = await store.commit((batch) => {
      batch.put(record);
      batch.emit(containerCreated(record.container));
      const response = { id: draft.id, warnings, revision: batch.revision };
      batch.reply(requestId, container.CreateContainerResponse.encode(response).finish());
    });
    return { id: draft.id, warnings, revision };
  }

  async #checkNetworks(draft: Draft): Promise<network.CheckSandboxResponse | undefined> {
    const { kind } = draft.network;
    if (kind === 'container') return undefined;
    const endpoints =
      kind === 'networks' ? draft.network.endpoints : [network.EndpointRequest.fromPartial({ network: kind })];
    return this.#context.peers.networks
      .check(endpoints, kind === 'networks' ? planPorts(draft.hostConfig.portBindings) : [])
      .catch((error: unknown) => {
        throw asBadRequest(error);
      });
  }

  /** @param leased images by the names that they were asked for by */
  async #acquireSources(
    draft: Draft,
    planned: PlannedMount[],
    leased: ReadonlyMap<string, image.MountedImage | undefined>,
  ): Promise<{ mounts: PlannedMount[]; points: container.MountPoint[] }> {
    const limit = pLimit(4);
    const acquiring = planned.map((mount) =>
      limit(async (): Promise<{ mount: PlannedMount; point: container.MountPoint | undefined }> => {
        if (mount.type === 'tmpfs') return { mount, point: mount.isShown ? pointOf(mount, '', '', '') : undefined };
        if (mount.type === 'bind') return { mount, point: pointOf(mount, '', mount.source, '') };
        if (mount.type === 'image') return this.#imageMount(draft, mount, leased.get(leasedName(mount)));
        const volume = await this.#context.peers.volumes
          .acquire({
            holder: { containerId: draft.id, containerName: draft.name },
            name: mount.name,
            isAnonymous: mount.isAnonymous ?? false,
            driver: mount.driver,
            options: mount.driverOptions,
            labels: mount.labels,
            destination: mount.destination,
            readOnly: mount.readOnly,
          })
          .catch((error: unknown) => {
            throw asBadRequest(error);
          });
        return {
          mount: { ...mount, name: volume.name },
          point: pointOf(mount, volume.name, volume.mountpoint, volume.driver),
        };
      }),
    );
    await Promise.allSettled(acquiring);
    const acquired = await Promise.all(acquiring);
    return {
      mounts: acquired.map(({ mount }) => mount),
      points: acquired.flatMap(({ point }) => (point === undefined ? [] : [point])),
    };
  }

  #imageMount(
    draft: Draft,
    mount: PlannedImage,
    leased: image.MountedImage | undefined,
  ): { mount: PlannedMount; point: container.MountPoint } {
    if (leased === undefined) throw internal(`the image service leased no image ${mount.image}`);
    return {
      mount: { ...mount, leased: { id: leased.id, lower: leased.lowerDirs } },
      point: pointOf(mount, mount.image, imagePinPath(this.#context, draft.id, mount.destination), ''),
    };
  }

  #reservation(draft: Draft): { container: ShownContainer; internals: ContainerInternals } {
    const shown = container.Container.fromPartial({ id: draft.id, name: draft.name });
    return {
      container: {
        ...shown,
        config: draft.config,
        hostConfig: draft.hostConfig,
        state: container.ContainerState.fromPartial({ status: toStatus('creating') }),
        networkSettings: container.NetworkSettings.fromPartial({}),
      },
      internals: newInternals(draft, []),
    };
  }

  #record(
    draft: Draft,
    config: container.ContainerConfig,
    layer: image.PrepareContainerLayerResponse,
    checked: network.CheckSandboxResponse | undefined,
    mounts: PlannedMount[],
    points: container.MountPoint[],
  ): { container: ShownContainer; internals: ContainerInternals } {
    const { id, name, hostConfig } = draft;
    const { settings } = this.#context;
    const directory = containerDir(settings, id);
    const requests =
      draft.network.kind === 'networks'
        ? draft.network.endpoints
        : draft.network.kind === 'container'
          ? []
          : [network.EndpointRequest.fromPartial({ network: draft.network.kind })];
    const shown: ShownContainer = {
      ...container.Container.fromPartial({ id, name }),
      createdAt: timestampNow(this.#context),
      ...commandLine(config),
      config,
      hostConfig,
      state: container.ContainerState.fromPartial({ status: toStatus('created') }),
      networkSettings: {
        ...container.NetworkSettings.fromPartial({}),
        networks: requests.map((request, at) => ({
          network: checked?.networkNames[at] ?? request.network,
          networkId: checked?.networkIds[at] ?? '',
          request,
        })),
      },
      mounts: points,
      imageId: layer.image?.id ?? '',
      platform: layer.image?.platform,
      imageDescriptor: layer.image?.descriptor,
      hostnamePath: join(directory, 'hostname'),
      hostsPath: join(directory, 'hosts'),
      resolvConfPath: join(directory, 'resolv.conf'),
      // What was asked for; a start says what it is.
      appArmorProfile: askedProfile(hostConfig.securityOpt),
      driver: layer.driver === '' ? 'overlay2' : layer.driver,
      lowerDirs: layer.lowerDirs,
      upperDir: layer.upperDir,
      workDir: layer.workDir,
    };
    if (hostConfig.logConfig?.type === 'json-file') shown.logPath = logSinkOf(shown, settings).path;
    return { container: shown, internals: newInternals(draft, mounts) };
  }

  /** Give back name, record, layer and references. What a peer that is down keeps is dropped by the next reconciliation. */
  async #undo(draft: Draft): Promise<void> {
    const { store, peers, log } = this.#context;
    const steps = await Promise.allSettled([
      peers.images.releaseLayer(draft.id),
      peers.volumes.releaseAll(draft.id, true),
      store.get(draft.id) === undefined ? undefined : store.commit((batch) => batch.remove(draft.id)),
    ]);
    store.releaseName(draft.name, draft.id);
    for (const step of steps) {
      if (step.status === 'rejected') {
        log.warn(
          { containerId: draft.id, reason: messageOf(step.reason) },
          'a failed create could not be undone at once',
        );
      }
    }
  }
}

function newId(): string {
  // An id that reads as a number would be taken for one by old clients; dockerd avoids it too.
  for (;;) {
    const id = randomBytes(32).toString('hex');
    if (!/^\d{12}/.test(id)) return id;
  }
}

function newInternals({ network: plan, links, userNamespace }: Draft, mounts: PlannedMount[]): ContainerInternals {
  return {
    mounts,
    network: plan,
    links,
    userNamespace: userNamespace ?? null,
    ...neverStarted,
  };
}

function completeHostConfig(given: container.HostConfig, settings: ContainerSettings): container.HostConfig {
  const policy = parseRestartPolicy(given.restartPolicy?.name ?? '', given.restartPolicy?.maximumRetryCount ?? 0);
  const resources = given.resources ?? container.Resources.fromPartial({});
  return {
    ...given,
    networkMode: normalizeNetworkMode(given.networkMode),
    restartPolicy: policy,
    logConfig: completeLogConfig(given.logConfig, settings),
    runtime: given.runtime === '' ? settings.defaultRuntime : given.runtime,
    shmSizeBytes: given.shmSizeBytes === 0n ? settings.defaultShmSizeBytes : given.shmSizeBytes,
    ipcMode: given.ipcMode === '' ? settings.defaultIpcMode : given.ipcMode,
    securityOpt: given.securityOpt.length === 0 && sharesHost(given) ? ['label=disable'] : given.securityOpt,
    cgroupnsMode: given.cgroupnsMode === '' ? settings.defaultCgroupnsMode : given.cgroupnsMode,
    resources: {
      ...resources,
      // As dockerd: without a swap limit, a memory limit allows as much swap again.
      memorySwapBytes:
        resources.memoryBytes > 0n && resources.memorySwapBytes === 0n
          ? resources.memoryBytes * 2n
          : resources.memorySwapBytes,
    },
  };
}

/** Such containers show that labels (SELinux) would not count for them. */
const sharesHost = ({ privileged, ipcMode, pidMode }: container.HostConfig): boolean =>
  privileged || ipcMode === 'host' || pidMode === 'host';

async function checkBindSources(mounts: readonly container.MountRequest[]): Promise<void> {
  for (const mount of mounts) {
    if (mount.type !== 'bind' || mount.bindOptions?.createMountpoint === true) continue;
    try {
      await stat(mount.source);
    } catch (cause) {
      throw invalidArgument(`invalid mount config for type "bind": bind source path does not exist: ${mount.source}`, {
        cause,
      });
    }
  }
}

function pointOf(mount: PlannedMount, name: string, source: string, driver: string): container.MountPoint {
  const { type } = mount;
  return {
    type,
    name,
    source,
    destination: mount.destination,
    driver,
    mode: mount.mode,
    rw: !mount.readOnly,
    propagation: type === 'image' ? 'rprivate' : type === 'tmpfs' ? '' : mount.propagation,
  };
}

/**
 * A missing network, container or volume driver that the request names is a fault of the request: 404 of create means a missing image,
 * and the docker CLI answers it with a pull.
 */
function asBadRequest(error: unknown): Error {
  if (isEngineError(error, 'notFound')) return invalidArgument(error.message, { cause: error });
  return error instanceof Error ? error : internal(messageOf(error));
}

function namedByRequest<T>(find: () => T): T {
  try {
    return find();
  } catch (error) {
    throw asBadRequest(error);
  }
}
