import { randomBytes } from 'node:crypto';
import { readdirSync, statSync } from 'node:fs';
import {
  examineImageStore,
  gzipLayer,
  makeImage,
  plainTar,
  startFaultProxy,
  waitFor,
  type FaultProxy,
  type SeenRequest,
} from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enterNamespace } from './enter-namespace.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const isDownload = ({ method, path }: SeenRequest): boolean => method === 'GET' && path.includes('/blobs/');
const isUpload = ({ method, path }: SeenRequest): boolean => method === 'PUT' && path.includes('/blobs/');

describe('kill -9 in a transfer', () => {
  let t: TestEngine;
  let inside: Disposable;
  let proxy: FaultProxy;
  beforeAll(async () => {
    t = await startTestEngine({ pull: false });
    inside = enterNamespace(t.namespace);
    proxy = await startFaultProxy(t.registry.address);
  });
  afterAll(async () => {
    await proxy[Symbol.asyncDispose]();
    inside[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
  });

  const layer = (name: string, bytes: number) => gzipLayer(plainTar([[name, randomBytes(bytes)]]), 0);
  const kill = async (name: string): Promise<void> => {
    const { pid } = (await t.engine.services()).find(({ service }) => service === name) ?? expect.fail();
    process.kill(pid, 'SIGKILL');
  };
  const expectWhole = async (): Promise<void> => {
    await waitFor(async () => (await t.engine.services()).every(({ health }) => health === 'SERVING'), {
      what: 'every service to be back',
      timeoutMs: 30_000,
    });
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });
  };

  it.each(['image', 'api-gateway', 'registry-proxy'])(
    '%s, in a pull: the same command fetches only the bytes that had not come',
    async (victim) => {
      const [first, second] = [layer('first', 300_000), layer('second', 4_000_000)];
      const image = makeImage([first, second]);
      await t.registry.push(image, `pull-${victim}`, 'latest');
      const name = `${proxy.address}/pull-${victim}`;
      // What has come is written in pieces of this size.
      const came = 3 * 2 ** 20;
      proxy.seen.length = 0;
      proxy.decide = ({ path }) => (path.endsWith(second.digest) ? { kind: 'stall', afterBytes: came } : undefined);
      const pulling = t.docker(['pull', name]);
      const kept = (directory: string): Map<string, number> => {
        const path = `${t.engine.dataRoot}/registry-proxy/blobs/${directory}`;
        return new Map(readdirSync(path).map((entry) => [entry, statSync(`${path}/${entry}`).size]));
      };
      await waitFor(
        () => [...kept('partial').values()].includes(came) && kept('complete').has(first.digest.replace(':', '-')),
        { what: 'one layer and the most of another', timeoutMs: 30_000 },
      );
      // From here on nothing is held; what is silent already remains so.
      proxy.decide = () => undefined;
      await kill(victim);
      await pulling;
      await expectWhole();
      expect(await t.docker(['pull', name])).toMatchObject({ code: 0, stderr: '' });
      expect(await t.ok('inspect', '-f', '{{.Id}}', name)).toBe(image.id);

      const downloads = proxy.seen.filter(isDownload);
      const ofSecond = downloads.filter(({ path }) => path.endsWith(second.digest));
      expect(ofSecond.map(({ range }) => range)).toEqual([undefined, `bytes=${came}-`]);
      expect(downloads.reduce((sum, { downloadedBytes }) => sum + downloadedBytes, 0)).toBe(
        first.blob.length + second.blob.length + image.configJson.length,
      );
      await t.ok('rmi', name);
      await expectWhole();
    },
  );

  it.each(['image', 'api-gateway', 'registry-proxy'])(
    '%s, in a push: the same command sends no layer that had arrived',
    async (victim) => {
      const layers = ['a', 'b', 'held'].map((name) => layer(name, 200_000));
      const image = makeImage(layers);
      const name = `${proxy.address}/push-${victim}`;
      const source = `${t.registry.address}/source-${victim}`;
      await t.registry.push(image, `source-${victim}`, 'latest');
      await t.ok('pull', '-q', source);
      await t.ok('tag', source, name);
      await t.ok('rmi', source);
      proxy.seen.length = 0;
      const held = encodeURIComponent(layers[2]?.digest ?? '');
      const isHeld = (seen: SeenRequest): boolean => isUpload(seen) && seen.path.includes(held);
      proxy.decide = (seen) => (isHeld(seen) ? { kind: 'hang' } : undefined);
      const pushing = t.docker(['push', name]);
      const arrived = new Set<string>();
      await waitFor(
        async () => {
          for (const { digest } of layers.slice(0, 2)) {
            const url = `http://${t.registry.address}/v2/push-${victim}/blobs/${digest}`;
            if ((await fetch(url, { method: 'HEAD' })).ok) arrived.add(digest);
          }
          return arrived.size === 2 && proxy.seen.some(isHeld);
        },
        { what: 'two layers at the registry and one under way', timeoutMs: 30_000 },
      );
      proxy.decide = () => undefined;
      await kill(victim);
      await pushing;
      await expectWhole();
      expect(await t.docker(['push', name])).toMatchObject({ code: 0, stderr: '' });

      const uploaded = proxy.seen.reduce((sum, { uploadedBytes }) => sum + uploadedBytes, 0);
      const content = layers.reduce((sum, { blob }) => sum + blob.length, 0);
      expect(uploaded).toBeGreaterThan(content);
      // Beside the layers, once each: configuration and manifest.
      expect(uploaded).toBeLessThan(content + 10_000);
      expect(readdirSync(`${t.engine.dataRoot}/exchange`)).toEqual([]);
      await t.ok('rmi', name);
      await t.ok('pull', '-q', name);
      expect(await t.ok('inspect', '-f', '{{.Id}}', name)).toBe(image.id);
      await t.ok('rmi', name);
      await expectWhole();
    },
  );
});
