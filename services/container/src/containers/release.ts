import { access, rm } from 'node:fs/promises';
import { messageOf } from '@flotilla/errors';
import type { RuntimeTask } from '../runtime/runtime.js';
import type { ContainerRecord } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { bundleDir, rootfsDir } from './settings.js';

/** What is left to release of a run. */
export interface ReleaseOptions {
  /** The task when this process has it; without it the runtime looks for what is left. */
  task?: RuntimeTask | undefined;
  /** The sandbox was released before. */
  networkReleased?: boolean;
}

/**
 * Give back everything that a run (or a start that failed, or one that a crash cut short) holds: task and shim, root file system, volume mounts,
 * sandbox, bundle. Idempotent. What a peer that is down still holds is released by the next reconciliation.
 */
export async function releaseRun(
  context: ContainerContext,
  record: Pick<ContainerRecord, 'container' | 'internals'>,
  { task, networkReleased = false }: ReleaseOptions = {},
): Promise<void> {
  const { id } = record.container;
  const hasVolumes = record.internals.mounts.some((mount) => mount.type === 'volume');
  const attempt = async (what: string, work: () => Promise<void>): Promise<boolean> => {
    try {
      await work();
      return true;
    } catch (error) {
      context.log.warn({ containerId: id, step: what, reason: messageOf(error) }, 'release step failed');
      return false;
    }
  };
  const sandbox = networkReleased ? undefined : attempt('sandbox', () => releaseSandbox(context, record));
  const bundle = bundleDir(context.settings, id);
  await attempt('task', () => (task === undefined ? context.runtime.cleanup(id, bundle) : task.delete()));
  const unmounted = await attempt('rootfs', () => context.rootfs.close(rootfsDir(context.settings, id)));
  await Promise.all([
    sandbox,
    hasVolumes ? attempt('volumes', () => context.peers.volumes.unmountAll(id)) : undefined,
    // Never below a root file system that is still mounted: its files are the container's own.
    unmounted ? attempt('bundle', () => rm(bundle, { recursive: true, force: true })) : undefined,
  ]);
}

/** Release the sandbox, if the container has one of its own. */
export async function releaseSandbox(
  context: ContainerContext,
  { container, internals }: Pick<ContainerRecord, 'container' | 'internals'>,
): Promise<void> {
  if (internals.network.kind !== 'container') await context.peers.networks.release(container.id);
}

/** Whether a run (or a start that was cut short) may have left something: its bundle is made first and removed last. */
export async function hasBundle(context: ContainerContext, id: string): Promise<boolean> {
  try {
    await access(bundleDir(context.settings, id));
    return true;
  } catch {
    return false;
  }
}
