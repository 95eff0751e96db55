import { spawn } from 'node:child_process';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import {
  gzipLayer,
  makeImage,
  makeTempDir,
  plainTar,
  serviceConfigFor,
  startFaultProxy,
  startRegistry,
  waitFor,
} from '@flotilla/testkit';
import { silentLogger } from '@flotilla/log';
import { registry as proto } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import { fetchAll, freePort } from './proxy-under-test.js';

const program = fileURLToPath(new URL('../dist/main.js', import.meta.url));

it('registry-proxy killed at any moment of a pull goes on where it ended', async () => {
  await using root = await makeTempDir('registry-kill');
  await using registry = await startRegistry({ directory: join(root.path, 'registry'), port: await freePort() });
  await using faults = await startFaultProxy(registry.address);
  const layers = [1_000_000, 2_000_000, 3_000_000].map((size) => gzipLayer(plainTar([['data', randomBytes(size)]]), 0));
  const image = makeImage(layers);
  await registry.push(image, 'web', 'latest');
  faults.decide = ({ path }) => (path.includes('/blobs/') ? { kind: 'slow', bytesPerSecond: 6_000_000 } : undefined);

  const config = serviceConfigFor('registry-proxy', root.path);
  const configPath = join(root.path, 'registry-proxy.json');
  writeFileSync(configPath, JSON.stringify(config));
  mkdirSync(config.execRoot, { recursive: true });
  const socket = join(config.execRoot, 'registry-proxy.sock');
  const blobsDir = join(config.dataDir, 'blobs');
  const start = async () => {
    const child = spawn(process.execPath, [program, '--config', configPath], { stdio: 'inherit' });
    const client = connect(proto.RegistryServiceService, `unix:${socket}`, { log: silentLogger() });
    // What a process before left there answers nobody.
    await waitFor(async () => client.getRegistryConfig({}, { deadlineMs: 2_000, retryUnavailableMs: 0 }), {
      what: 'registry-proxy to serve',
    });
    return { child, client };
  };
  type Client = Awaited<ReturnType<typeof start>>['client'];
  const repository = `${faults.address}/web`;
  const pull = async (client: Client): Promise<number> => {
    const resolve = { repository, reference: 'latest', credentials: undefined };
    const { digest } = await client.resolveManifest(resolve, { deadlineMs: 20_000, retryUnavailableMs: 0 });
    expect(digest).toBe(image.manifestDigest);
    const fetched = await Promise.all(
      layers.map(async (layer) => {
        const { done, data } = await fetchAll(
          client.fetchBlob(
            proto.FetchBlobRequest.fromPartial({
              ...{ repository, digest: layer.digest, stream: true, sizeBytes: BigInt(layer.blob.length) },
            }),
          ),
        );
        expect(data.equals(layer.blob)).toBe(true);
        return Number(done.transferredBytes);
      }),
    );
    return fetched.reduce((sum, bytes) => sum + bytes, 0);
  };
  const bytesIn = (directory: string): number =>
    readdirSync(join(blobsDir, directory)).reduce(
      (sum, name) => sum + statSync(join(blobsDir, directory, name)).size,
      0,
    );

  const kept = (): number => bytesIn('partial') + bytesIn('complete');
  for (let round = 0; round < 6; round += 1) {
    const { child, client } = await start();
    const isOver = { pull: false };
    const pulling = pull(client)
      .catch(() => undefined)
      .finally(() => (isOver.pull = true));
    // Every third at a moment of its own, e.g. before the first answer; the others somewhere in the bytes.
    const until = kept() + randomInt(1, 1_200_000);
    if (round % 3 === 0) await delay(randomInt(150));
    else await waitFor(() => isOver.pull || kept() >= until, { what: 'some bytes', intervalMs: 2 });
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    await pulling;
    client.close();
    // Whatever is called complete is.
    for (const name of readdirSync(join(blobsDir, 'complete'))) {
      const hash = createHash('sha256')
        .update(readFileSync(join(blobsDir, 'complete', name)))
        .digest('hex');
      expect(name).toBe(`sha256-${hash}`);
    }
  }

  const before = kept();
  expect(before).toBeGreaterThan(0);
  const { child, client } = await start();
  const whole = layers.reduce((sum, { blob }) => sum + blob.length, 0);
  expect(await pull(client)).toBe(whole - before);
  // And what was learned survived too.
  faults.decide = () => ({ kind: 'status', status: 503 });
  child.kill('SIGKILL');
  await once(child, 'exit');
  client.close();
  const last = await start();
  expect(await pull(last.client)).toBe(0);
  last.child.kill('SIGTERM');
  await once(last.child, 'exit');
  last.client.close();
}, 60_000);
