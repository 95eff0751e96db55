import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expectNoLeaks, snapshotKernelState, waitFor } from '@flotilla/testkit';
import { rawRequest } from './raw-http.js';
import type { TestEngine } from './test-engine.js';

/** What an operation on an engine could leave behind, at one moment. */
export interface Footprint {
  /** Throws naming what is there now and was not then, after giving it time to go. */
  expectUnchanged(): Promise<void>;
}

/** Take stock of the objects and files of an engine, and of its processes, mounts, cgroups, links, rules and sockets. */
export async function takeFootprint(t: TestEngine): Promise<Footprint> {
  const kernel = await snapshotKernelState({
    roots: [`${t.directory}/engine`],
    netns: t.namespace.name,
    cgroupParent: t.namespace.name,
    mountsOf: () => t.engine.launcherPid,
  });
  const records = await takeRecords(t);
  return {
    async expectUnchanged() {
      await records.expectUnchanged();
      await expectNoLeaks(kernel);
    },
  };
}

/** The quick part of {@link takeFootprint}, for one case of many: objects and files. */
export async function takeRecords(t: TestEngine): Promise<Footprint> {
  const before = await readAll(t);
  return {
    async expectUnchanged() {
      await waitFor(
        async () => {
          const left = [...(await readAll(t))].filter((it) => !before.has(it));
          if (left.length > 0) throw new Error(`left behind: ${left.slice(0, 20).join(', ')}`);
          return true;
        },
        { what: 'objects and files to be cleaned up', timeoutMs: 20_000, intervalMs: 50 },
      );
    },
  };
}

async function readAll(t: TestEngine): Promise<Set<string>> {
  const objects = await readObjects(t);
  const files = await waitFor(() => readFiles(t.engine.dataRoot), { what: 'a data root that holds still' });
  return new Set([...objects, ...files]);
}

async function readObjects(t: TestEngine): Promise<string[]> {
  const get = async (path: string) => (await rawRequest(t.engine.socket, 'GET', `/v1.51${path}`)).json;
  const [containers, images, volumes, networks] = await Promise.all([
    get('/containers/json?all=1') as Promise<{ Id: string }[]>,
    get('/images/json?all=1') as Promise<{ Id: string; RepoTags: string[] | null }[]>,
    get('/volumes') as Promise<{ Volumes: { Name: string }[] | null }>,
    get('/networks') as Promise<{ Name: string }[]>,
  ]);
  return [
    ...containers.map(({ Id }) => `container ${Id}`),
    ...images.map(({ Id, RepoTags }) => `image ${Id} ${(RepoTags ?? []).join(' ')}`),
    ...(volumes.Volumes ?? []).map(({ Name }) => `volume ${Name}`),
    ...networks.map(({ Name }) => `network ${Name}`),
  ];
}

/** Files that grow with use and belong to no one object: databases, journals, the registry cache. */
const bookkeeping = /^(nats|registry-proxy|[^/]+\/db|[^/]+\/[^/]+\.log|image\/layers\/[0-9a-f]+\/synced)$/;
/** Directories that blobs share by their first digits. */
const shared = /^image\/content\/sha256(\/..)?$/;

/** What lies in the data root, down to one object each; throws when a directory goes meanwhile. */
function readFiles(dataRoot: string): string[] {
  const found: string[] = [];
  const walk = (below: string): void => {
    for (const entry of readdirSync(join(dataRoot, below), { withFileTypes: true })) {
      const name = below === '' ? entry.name : `${below}/${entry.name}`;
      if (bookkeeping.test(name)) continue;
      if (!shared.test(name)) found.push(name);
      if (entry.isDirectory() && !/(^|\/)(diff|_data)$/.test(name)) walk(name);
    }
  };
  walk('');
  return found;
}
