import { rm } from 'node:fs/promises';
import { messageOf } from '@flotilla/errors';
import { pathExists } from '@flotilla/sys';
import type { RuntimeTask } from '../runtime/runtime.js';
import type { ContainerRecord } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { bundleDir, rootfsDir } from './settings.js';

/** The task of a run when this process has it; `unknown` after a crash: the runtime looks for what is left. */
export type TaskLeft = RuntimeTask | 'no task' | 'unknown';

/**
 * Give back everything that a run (or a start that failed, or one that a crash cut short) holds: task and shim, root file system, volume mounts,
 * sandbox, bundle. Idempotent. A sandbox that cannot be released now goes with the next reconciliation; for volumes the bundle stays, by which the
 * next start or removal of the container and the next start of the service know that there is something to release.
 */
export async function releaseRun(
  context: ContainerContext,
  record: Pick<ContainerRecord, 'container' | 'internals'>,
  task: TaskLeft,
  sandboxIsReleased = false,
): Promise<void> {
  const { id } = record.container;
  const attempt = async (what: string, work: () => Promise<void>): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      context.log.warn({ containerId: id, step: what, reason: messageOf(error) }, 'release step failed');
      return false;
    }
  };
  const sandbox = sandboxIsReleased ? undefined : attempt('sandbox', () => releaseSandbox(context, record));
  const bundle = bundleDir(context.settings, id);
  const binary = context.settings.runtimes.get(record.container.hostConfig.runtime);
  if (task === 'unknown') await attempt('task', () => context.runtime.cleanup(id, bundle, binary));
  else if (task !== 'no task') await attempt('task', () => task.delete());
  await endCopies(context, record);
  const unmounted = await attempt('rootfs', () => context.rootfs.close(rootfsDir(context.settings, id)));
  const released = !hasVolumes(record) || (await attempt('volumes', () => context.peers.volumes.unmountAll(id)));
  // The mark that something is left goes last; and never below a root file system that is still mounted: its files are the container's own.
  if (unmounted && released) await attempt('bundle', () => rm(bundle, { recursive: true, force: true }));
  await sandbox;
}

/** A copy that is under way is finished first, as with dockerd; when somebody removes the container, it ends. */
export async function endCopies(
  { rootfsUses }: ContainerContext,
  { container, internals }: Pick<ContainerRecord, 'container' | 'internals'>,
): Promise<void> {
  const isAutoRemoved = internals.removal?.requestId === '';
  if (internals.removal === null || isAutoRemoved) await rootfsUses.settle(container.id);
  else await rootfsUses.endAll(container.id, `container ${container.id} is being removed`);
}

/** Release the sandbox, if the container has one of its own. */
export async function releaseSandbox(
  context: ContainerContext,
  { container, internals }: Pick<ContainerRecord, 'container' | 'internals'>,
): Promise<void> {
  if (internals.network.kind !== 'container') await context.peers.networks.release(container.id);
}

/** Whether a run (or a start that was cut short) may have left something: its bundle is made first and removed last. */
export function hasBundle(context: ContainerContext, id: string): Promise<boolean> {
  return pathExists(bundleDir(context.settings, id));
}

/** Whether something is mounted for the container beside its root file system, so that its bundle tells of it. */
export function hasSources({ internals }: Pick<ContainerRecord, 'internals'>): boolean {
  return internals.mounts.some(({ type }) => type === 'volume' || type === 'image');
}

/** Whether the volume service knows of the container at all. */
export function hasVolumes({ internals }: Pick<ContainerRecord, 'internals'>): boolean {
  return internals.quarantine?.isRecordLost === true || internals.mounts.some((mount) => mount.type === 'volume');
}
