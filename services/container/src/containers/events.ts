import type { EngineEvent } from '@flotilla/store';
import type { ShownContainer } from '../store/container-record.js';

function containerEvent(action: string, container: ShownContainer, facts: Record<string, string> = {}): EngineEvent {
  const image: Record<string, string> = container.config.image === '' ? {} : { image: container.config.image };
  return {
    type: 'container',
    action,
    actorId: container.id,
    attributes: { ...facts, ...container.config.labels, ...image, name: container.name },
  };
}

export const containerCreated = (container: ShownContainer): EngineEvent => containerEvent('create', container);
export const containerStarted = (container: ShownContainer): EngineEvent => containerEvent('start', container);
export const containerRestarted = (container: ShownContainer): EngineEvent => containerEvent('restart', container);
export const containerStopped = (container: ShownContainer): EngineEvent => containerEvent('stop', container);
export const containerUpdated = (container: ShownContainer): EngineEvent => containerEvent('update', container);
export const containerPaused = (container: ShownContainer): EngineEvent => containerEvent('pause', container);
export const containerUnpaused = (container: ShownContainer): EngineEvent => containerEvent('unpause', container);
export const containerOutOfMemory = (container: ShownContainer): EngineEvent => containerEvent('oom', container);
export const containerAttached = (container: ShownContainer): EngineEvent => containerEvent('attach', container);
export const containerDetached = (container: ShownContainer): EngineEvent => containerEvent('detach', container);
export const containerExported = (container: ShownContainer): EngineEvent => containerEvent('export', container);
export const containerArchived = (container: ShownContainer): EngineEvent => containerEvent('archive-path', container);
export const containerExtracted = (container: ShownContainer): EngineEvent =>
  containerEvent('extract-to-dir', container);
export const containerDestroyed = (container: ShownContainer): EngineEvent => containerEvent('destroy', container);

/** `ranForMs` is shown in whole seconds, as dockerd does. */
export function containerDied(container: ShownContainer, exitCode: number, ranForMs: number): EngineEvent {
  const execDuration = String(Math.max(0, Math.floor(ranForMs / 1000)));
  return containerEvent('die', container, { execDuration, exitCode: String(exitCode) });
}

export function containerKilled(container: ShownContainer, signal: number): EngineEvent {
  return containerEvent('kill', container, { signal: String(signal) });
}

export function containerCommitted(
  container: ShownContainer,
  { comment, imageId, imageRef }: { comment: string; imageId: string; imageRef: string },
): EngineEvent {
  return containerEvent('commit', container, { comment, imageID: imageId, imageRef });
}

/** `container` has its new name already. */
export function containerRenamed(container: ShownContainer, oldName: string): EngineEvent {
  return containerEvent('rename', container, { oldName: `/${oldName}` });
}

export function containerResized(container: ShownContainer, height: number, width: number): EngineEvent {
  return containerEvent('resize', container, { height: String(height), width: String(width) });
}

const execAction = (action: string, cmd: readonly string[]): string => `${action}: ${cmd.join(' ')}`;

export function execCreated(container: ShownContainer, execId: string, cmd: readonly string[]): EngineEvent {
  return containerEvent(execAction('exec_create', cmd), container, { execID: execId });
}

export function execStarted(container: ShownContainer, execId: string, cmd: readonly string[]): EngineEvent {
  return containerEvent(execAction('exec_start', cmd), container, { execID: execId });
}

export function execDied(container: ShownContainer, execId: string, exitCode: number): EngineEvent {
  return containerEvent('exec_die', container, { execID: execId, exitCode: String(exitCode) });
}

export function execDetached(container: ShownContainer, execId: string): EngineEvent {
  return containerEvent('exec_detach', container, { execID: execId });
}

export function healthChanged(container: ShownContainer, status: string): EngineEvent {
  return containerEvent(`health_status: ${status}`, container);
}

export function containersPruned(reclaimedBytes: bigint): EngineEvent {
  return { type: 'container', action: 'prune', actorId: '', attributes: { reclaimed: String(reclaimedBytes) } };
}
