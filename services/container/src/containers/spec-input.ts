import type { EtcFiles } from '../rootfs/etc-files.js';
import type { ResolvedUser } from '../rootfs/user-spec.js';
import type { ShownContainer } from '../store/container-record.js';
import type { PlannedMount } from './mount-plan.js';

/** A planned mount with the host path that stands behind it (empty for tmpfs). */
export interface ResolvedMount {
  planned: PlannedMount;
  source: string;
}

/** Another container's process whose namespace is shared, or the host's. */
export type NamespaceChoice = { kind: 'private' } | { kind: 'host' } | { kind: 'path'; path: string };

/** Everything that a start knows when the runtime's configuration is written. */
export interface SpecRequest {
  container: ShownContainer;
  user: ResolvedUser;
  mounts: ResolvedMount[];
  etc: EtcFiles;
  network: NamespaceChoice;
  pid: NamespaceChoice;
  ipc: NamespaceChoice;
  /** Directory of the bundle. */
  bundle: string;
}

/** Makes config.json's content. @throws EngineError `invalidArgument` for what only shows now (a device that does not exist). */
export type BuildSpec = (request: SpecRequest) => Promise<object> | object;
