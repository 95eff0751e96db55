import { container } from '@flotilla/proto';
import { describe, expect, it } from 'vitest';
import { completeContainer, type ContainerRecord } from '../store/container-record.js';
import type { ContainerContext } from './context.js';
import { makeRunNamespaces } from './run-namespaces.js';

const ranges = [{ containerId: 0, hostId: 200_000, size: 65_536 }];
const mappings = { uids: ranges, gids: ranges };
/** Beyond the kernel's limit: of nobody. */
const endedPid = 2 ** 30;

function record(id: string, hostConfig: Partial<container.HostConfig> = {}): ContainerRecord {
  const state = { status: container.ContainerStatus.RUNNING, pid: endedPid };
  const shown = container.Container.fromPartial({ id, hostConfig, state });
  const internals = { network: { kind: 'none' }, userNamespace: mappings } as unknown as ContainerRecord['internals'];
  return { container: completeContainer(shown), internals, revision: 1n };
}

describe('the namespaces of a container that shares those of others', () => {
  it.each([
    [{ pidMode: 'container:one', ipcMode: 'container:two' }, 'container one is not running'],
    [{ pidMode: 'container:one' }, 'container one is not running'],
  ])('%j, when they have ended and that is not recorded yet: refused', async (hostConfig, message) => {
    const context = { store: { resolve: (id: string) => record(id) } } as unknown as ContainerContext;
    const making = makeRunNamespaces(context, record('sharer', hostConfig), mappings);
    await expect(making).rejects.toMatchObject({ kind: 'conflict', message });
  });
});
