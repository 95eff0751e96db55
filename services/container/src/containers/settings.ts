import { availableParallelism, totalmem } from 'node:os';
import { join } from 'node:path';
import type { IdMappings } from '@flotilla/sys';
import type { Machine } from './validate-resources.js';

/** What the lifecycle needs to know of its engine. */
export interface ContainerSettings {
  /** The service's own directory; containers' files lie in `containers/<id>` below it. */
  dataDir: string;
  /** Directory of bundles, one per container that runs. */
  bundlesDir: string;
  /** Name to program. */
  runtimes: ReadonlyMap<string, string>;
  defaultRuntime: string;
  /** Cgroup of shims; empty leaves them where the service is. */
  shimCgroup: string;
  systemdCgroup: boolean;
  /** Parent cgroup of containers that ask for none. */
  cgroupParent: string;
  /** `host` with cgroup v1, `private` with v2, as dockerd. */
  defaultCgroupnsMode: string;
  defaultLogDriver: string;
  defaultLogOptions: Readonly<Record<string, string>>;
  defaultStopTimeoutSeconds: number;
  defaultShmSizeBytes: bigint;
  /** `private` or `shareable`. */
  defaultIpcMode: string;
  /** Run an init in every container that does not say otherwise. */
  init: boolean;
  initPath: string;
  /** New containers run in user namespaces with these ids; undefined: in the host's. */
  userNamespace: IdMappings | undefined;
  /** Starts at one time. */
  concurrentStarts: number;
  machine: Machine;
}

export function readMachine(): Machine {
  return { cpus: availableParallelism(), memoryBytes: BigInt(totalmem()) };
}

/** Directory of one container's log, hosts, hostname and resolv.conf. */
export function containerDir(settings: ContainerSettings, id: string): string {
  return join(settings.dataDir, 'containers', id);
}

/** An empty directory: copies mount root file systems on it, each in a mount namespace of its own. */
export function archiveRoot(settings: ContainerSettings): string {
  return join(settings.dataDir, 'archive-root');
}

export function bundleDir(settings: ContainerSettings, id: string): string {
  return join(settings.bundlesDir, id);
}

export function rootfsDir(settings: ContainerSettings, id: string): string {
  return join(settings.bundlesDir, id, 'rootfs');
}
