import type { Identity } from '@flotilla/rpc';
import type { ContainerRecord } from '../store/container-record.js';

/** Whether the caller may see a container: its labels hold all that the identity asks for. */
export function isVisible({ visibility }: Identity, record: ContainerRecord): boolean {
  if (visibility === null) return true;
  const { labels } = record.container.config;
  return Object.entries(visibility).every(([key, value]) => labels[key] === value);
}
