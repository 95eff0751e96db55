import { chmod, chown, mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { IdMap } from '../rootfs/id-map.js';
import { bundleDir, type ContainerSettings } from './settings.js';

/**
 * Make the bundle of a container. Nobody but root gets into it: a root file system may hold programs that are root's whoever runs them. The root of a
 * container in a user namespace, who is nobody special outside, gets through by its group, and through the exec root, in which everything is closed by itself.
 */
export async function makeBundle(settings: ContainerSettings, id: string, idMap: IdMap | undefined): Promise<string> {
  const bundle = bundleDir(settings, id);
  await mkdir(bundle, { recursive: true, mode: 0o700 });
  if (idMap === undefined) return bundle;
  await chown(bundle, 0, idMap.root.gid);
  await chmod(bundle, 0o710);
  // Closed when the engine has started without `userns-remap`; the container keeps what it was made with.
  const execRoot = dirname(settings.bundlesDir);
  if (((await stat(execRoot)).mode & 0o001) === 0) await chmod(execRoot, 0o711);
  return bundle;
}
