import type { EtcFiles } from '../rootfs/etc-files.js';
import type { ResolvedUser } from '../rootfs/user-spec.js';
import type { NamespaceChoice, SpecInput, UserNamespace } from '../spec/index.js';
import type { ShownContainer } from '../store/container-record.js';
import type { PlannedMount } from './mount-plan.js';

export type { NamespaceChoice };

/** A planned mount with the host path that stands behind it (empty for tmpfs). */
export interface ResolvedMount {
  planned: PlannedMount;
  source: string;
}

/** Everything that a start knows when the runtime's configuration is written. */
export interface SpecRequest {
  container: ShownContainer;
  /** The container's own, the machine's, or that of the container whose network is shared. */
  hostname: string;
  user: ResolvedUser;
  mounts: ResolvedMount[];
  etc: EtcFiles;
  /** Variables that links tell. */
  linkedEnvironment: readonly string[];
  network: NamespaceChoice;
  /** The network namespace is nobody else's. */
  ownsNetwork: boolean;
  pid: NamespaceChoice;
  ipc: NamespaceChoice;
  /** What is at /dev/shm. */
  shm: SpecInput['shm'];
  /** Absent on a machine without AppArmor. */
  appArmorProfile?: string;
  /** Absent: the host's. */
  userNamespace?: UserNamespace;
}

/** Makes config.json's text. @throws EngineError `invalidArgument` for what only shows now (a device that does not exist). */
export type BuildSpec = (request: SpecRequest) => string;
