import { mkdir, stat, writeFile } from 'node:fs/promises';
import { hostname as machineName } from 'node:os';
import { join } from 'node:path';
import { conflict, internal, invalidArgument, messageOf } from '@flotilla/errors';
import { network, volume } from '@flotilla/proto';
import pLimit from 'p-limit';
import {
  type EtcFiles,
  etcFilesIn,
  type HostsLine,
  readHostHosts,
  renderHosts,
  writeEtcFiles,
} from '../rootfs/etc-files.js';
import type { IdMap } from '../rootfs/id-map.js';
import { pinDirectory, pinName, type PinOwners } from '../rootfs/pins.js';
import type { ContainerRecord } from '../store/container-record.js';
import { stateOf } from '../store/container-record.js';
import { makeBundle } from './bundle-directory.js';
import type { ContainerContext } from './context.js';
import { fillVolumes, type MountedVolume } from './fill-volumes.js';
import { linkedAtStart } from './links.js';
import type { PlannedImage, PlannedVolume } from './mount-plan.js';
import { planPorts } from './port-plan.js';
import { makeRunNamespaces, type RunNamespaces } from './run-namespaces.js';
import { containerDir, rootfsDir } from './settings.js';
import { type Ipc, pidNamespace, prepareIpc } from './shared-namespaces.js';
import type { NamespaceChoice } from './spec-input.js';
import { isLive } from './state.js';

/** A run made ready up to its config.json. Disposed when the runtime has made the task. */
export interface PreparedRun extends AsyncDisposable {
  bundle: string;
  etc: EtcFiles;
  /** Absent when another container's namespace is shared. */
  sandbox: network.PrepareSandboxResponse | undefined;
  networkNamespace: NamespaceChoice;
  /** See `Ipc`. */
  shmPath?: string;
  /** Absent on a machine without AppArmor. */
  appArmorProfile?: string;
  /** Present for a container in a user namespace of its own. */
  idMap: IdMap | undefined;
}

interface SandboxResult {
  sandbox: network.PrepareSandboxResponse | undefined;
  namespace: NamespaceChoice;
  hostname: string;
  etc: EtcFiles;
}

/**
 * Everything before the runtime creates the task: sandbox, root file system, mounts and shim, side by side, then copy-up and config.json.
 * When it throws, the caller releases whatever was made.
 */
export async function prepareRun(context: ContainerContext, record: ContainerRecord): Promise<PreparedRun> {
  const { container, internals } = record;
  await context.layersGate.passed();
  const linked = linkedAtStart(context.store, record);
  const mappings = internals.userNamespace ?? undefined;
  const idMap = mappings === undefined ? undefined : await context.idMaps.of(mappings);
  // The directory is the mark by which a crash is recognised: a bundle whose container does not run is released.
  const [bundle] = await Promise.all([
    makeBundle(context.settings, container.id, idMap),
    mkdir(containerDir(context.settings, container.id), { recursive: true, mode: 0o710 }),
  ]);
  const { tty: terminal, openStdin } = container.config;
  context.runtime.prepare({ id: container.id, bundle, terminal, openStdin });
  const namespaces = mappings === undefined ? undefined : makeRunNamespaces(context, record, mappings);
  const dispose = async (): Promise<void> => {
    await (await namespaces?.catch(() => undefined))?.[Symbol.asyncDispose]();
  };
  try {
    const [own, sandbox, opened, { mounts, ipc, appArmorProfile }] = await settleAll(
      namespaces,
      prepareSandbox(context, record, { linkedHosts: linked.hosts, namespaces, idMap }),
      context.rootfs.open({
        target: rootfsDir(context.settings, container.id),
        lower: container.lowerDirs,
        upper: container.upperDir,
        work: container.workDir,
        user: container.config.user,
        groups: container.hostConfig.groupAdd,
        workingDir: container.config.workingDir,
        ...(idMap === undefined ? {} : { idMap }),
      }),
      prepareSources(context, record, idMap),
    );
    await fillVolumes(context, record, mounts, { rootfs: rootfsDir(context.settings, container.id), idMap });
    const spec = context.buildSpec({
      container,
      hostname: sandbox.hostname,
      user: opened.user,
      mounts,
      etc: sandbox.etc,
      linkedEnvironment: linked.environment,
      network: sandbox.namespace,
      ownsNetwork: sandbox.sandbox !== undefined && sandbox.namespace.kind === 'path',
      pid: pidNamespace(context, record),
      ipc: ipc.namespace,
      shm: ipc.shm,
      ...appArmorProfile,
      ...(own === undefined || mappings === undefined ? {} : { userNamespace: { path: own.userPath, mappings } }),
    });
    await writeFile(join(bundle, 'config.json'), spec, { mode: 0o600 });
    return {
      bundle,
      etc: sandbox.etc,
      sandbox: sandbox.sandbox,
      networkNamespace: sandbox.namespace,
      ...(ipc.shmPath === undefined ? {} : { shmPath: ipc.shmPath }),
      ...appArmorProfile,
      idMap,
      [Symbol.asyncDispose]: dispose,
    };
  } catch (error) {
    await dispose();
    throw error;
  }
}

async function prepareSources(
  context: ContainerContext,
  record: ContainerRecord,
  idMap: IdMap | undefined,
): Promise<{ mounts: MountedVolume[]; ipc: Ipc; appArmorProfile: { appArmorProfile?: string } }> {
  const [mounts, ipc, profile] = await settleAll(
    resolveMounts(context, record, idMap),
    prepareIpc(context, record, idMap?.root),
    context.appArmor.profileFor(record.container.hostConfig),
  );
  return { mounts, ipc, appArmorProfile: profile === undefined ? {} : { appArmorProfile: profile } };
}

/** As Promise.all, but a failure is thrown only when all have come to an end: nothing is still being made while it is undone. */
async function settleAll<T extends readonly unknown[]>(
  ...work: T
): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

interface SandboxParts {
  linkedHosts: readonly HostsLine[];
  namespaces: Promise<RunNamespaces> | undefined;
  idMap: IdMap | undefined;
}

async function prepareSandbox(
  context: ContainerContext,
  record: ContainerRecord,
  { linkedHosts, namespaces, idMap }: SandboxParts,
): Promise<SandboxResult> {
  const { container, internals } = record;
  const { config, hostConfig } = container;
  const plan = internals.network;
  if (plan.kind === 'container') return joinSandbox(context, plan.target);
  const sandbox = await context.peers.networks.prepare({
    containerId: container.id,
    containerName: container.name,
    hostname: config.hostname,
    domainName: config.domainName,
    endpoints: plan.kind === 'networks' ? plan.endpoints : [],
    ports: planPorts(hostConfig.portBindings),
    dnsServers: hostConfig.dns,
    dnsSearch: hostConfig.dnsSearch,
    dnsOptions: hostConfig.dnsOptions,
    extraHosts: hostConfig.extraHosts,
    publishAll: hostConfig.publishAllPorts,
    exposedPorts: config.exposedPorts,
    hostMode: plan.kind === 'host',
    sysctls: hostConfig.sysctls,
    adoptedNamespacePath: (await namespaces)?.networkPath ?? '',
  });
  const hostname = shownHostname(record);
  const content = {
    hosts: renderHosts([...linkedHosts, ...sandbox.hosts], plan.kind === 'host' ? await readHostHosts() : undefined),
    hostname,
    resolvConf: sandbox.resolvConf,
  };
  const etc = await writeEtcFiles(containerDir(context.settings, container.id), content, idMap?.root);
  const namespace: NamespaceChoice =
    plan.kind === 'host' ? { kind: 'host' } : { kind: 'path', path: sandbox.namespacePath };
  return { sandbox, namespace, hostname, etc };
}

function shownHostname({ container, internals }: ContainerRecord): string {
  const { config, hostConfig } = container;
  const isMachine = internals.network.kind === 'host' || hostConfig.utsMode === 'host';
  return isMachine && config.hostname === '' ? machineName() : config.hostname;
}

function joinSandbox(context: ContainerContext, target: string): SandboxResult {
  const other = context.store.resolve(target);
  if (!isLive(stateOf(other))) throw conflict(`cannot join network of a non running container: ${other.container.id}`);
  const { sandboxKey } = other.container.networkSettings;
  const etc = etcFilesIn(containerDir(context.settings, other.container.id));
  const namespace: NamespaceChoice =
    other.internals.network.kind === 'host'
      ? { kind: 'host' }
      : { kind: 'path', path: sandboxKey === '' ? `/proc/${other.container.state.pid}/ns/net` : sandboxKey };
  return { sandbox: undefined, namespace, hostname: shownHostname(other), etc };
}

/** Where the sources of a container's mounts lie on the host; volumes are mounted for it, missing directories made. */
export async function resolveMounts(
  context: ContainerContext,
  { container, internals }: ContainerRecord,
  idMap: IdMap | undefined,
): Promise<MountedVolume[]> {
  const limit = pLimit(4);
  const resolving = internals.mounts.map((planned) =>
    limit(async (): Promise<MountedVolume> => {
      switch (planned.type) {
        case 'tmpfs':
          return { planned, source: '' };
        case 'bind':
          await ensureBindSource(planned.source, planned.createSource);
          return { planned, source: planned.source };
        case 'volume':
          return { planned, ...(await mountVolume(context, container.id, planned, idMap)) };
        case 'image':
          return { planned, source: await mountImage(context, container.id, planned, idMap) };
      }
    }),
  );
  await Promise.allSettled(resolving);
  return Promise.all(resolving);
}

async function mountVolume(
  context: ContainerContext,
  containerId: string,
  planned: PlannedVolume,
  idMap: IdMap | undefined,
): Promise<{ source: string; staging?: string }> {
  const { name, destination, readOnly, subpath } = planned;
  const mounted = await context.peers.volumes.mount(containerId, name, destination, readOnly);
  const { path, content } = mounted;
  const copying = mounted.fresh && subpath === '' ? { staging: mounted.copyStaging } : {};
  if (subpath === '' && idMap === undefined) return { source: path, ...copying };
  const rootfs = rootfsDir(context.settings, containerId);
  const owners = idMap === undefined ? {} : ownersOf(content, idMap);
  const source = await context.rootfs.pin(rootfs, path, subpath === '' ? '.' : subpath, pinName(destination), owners);
  return { source, ...copying };
}

/** Others get to files that are not the engine's: a container's root must not be the machine's there. */
function ownersOf(content: volume.VolumeContent, idMap: IdMap): PinOwners {
  switch (content) {
    case volume.VolumeContent.BIND:
      return {};
    case volume.VolumeContent.FILE_SYSTEM:
      return { newTo: idMap.root };
    default:
      return { idMap };
  }
}

function mountImage(
  context: ContainerContext,
  containerId: string,
  planned: PlannedImage,
  idMap: IdMap | undefined,
): Promise<string> {
  const { destination, leased, subpath } = planned;
  if (leased === undefined) throw internal(`the image ${planned.image} was never leased`);
  const rootfs = rootfsDir(context.settings, containerId);
  return context.rootfs.pinImage(rootfs, leased.lower, subpath, pinName(destination), idMap);
}

/** Where an image's content is mounted while its container runs. */
export function imagePinPath(context: ContainerContext, containerId: string, destination: string): string {
  return join(pinDirectory(rootfsDir(context.settings, containerId)), pinName(destination));
}

async function ensureBindSource(source: string, create: boolean): Promise<void> {
  try {
    await stat(source);
  } catch (error) {
    if (!create) {
      throw invalidArgument(`invalid mount config for type "bind": bind source path does not exist: ${source}`, {
        cause: error,
      });
    }
    try {
      await mkdir(source, { recursive: true, mode: 0o755 });
    } catch (cause) {
      throw internal(`error while creating mount source path '${source}': ${messageOf(cause)}`, { cause });
    }
  }
}
