import { container } from '@flotilla/proto';
import {
  completeContainer,
  type ContainerInternals,
  neverStarted,
  type ShownContainer,
  toStatus,
} from './container-record.js';

/** What stands for a container of whose record a part, at least, is lost: dead, with what the other part tells. */
export function standIn(
  id: string,
  shown: container.Container | undefined,
  internals: ContainerInternals | undefined,
  reason: string,
): { container: ShownContainer; internals: ContainerInternals } {
  const known = completeContainer(shown ?? container.Container.fromPartial({ id, name: id.slice(0, 12) }));
  const state = { ...known.state, status: toStatus('dead'), pid: 0, error: reason, health: undefined };
  return {
    container: { ...known, state },
    internals: { ...(internals ?? noInternals), task: null, backOff: null, quarantine: { reason, isRecordLost: true } },
  };
}

const noInternals: ContainerInternals = {
  mounts: [],
  network: { kind: 'none' },
  ...neverStarted,
};
