import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  dockerArchive,
  gzipLayer,
  makeImage,
  plainTar,
  startDockerd,
  type DockerdPeer,
  type FixtureImage,
} from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

const cacheDirectory = join(import.meta.dirname, '../../.cache');

describe('images as archives', () => {
  let t: TestEngine;
  let dockerd: DockerdPeer;
  /** Two layers, of which the first occurs twice, and two tags. */
  let layered: FixtureImage;
  beforeAll(async () => {
    t = await startTestEngine();
    dockerd = await startDockerd({ directory: `${t.directory}/dockerd`, cacheDirectory, namespace: t.namespace });
    const small = gzipLayer(plainTar([['twice', Buffer.from('same')]]));
    const large = gzipLayer(plainTar([['random', randomBytes(3_000_000)]]));
    layered = makeImage([small, large, small], { Cmd: ['x'] });
    writeFileSync(`${t.directory}/layered.tar`, dockerArchive(layered, ['layered:1', 'layered:2']));
    await t.ok('load', '-qi', `${t.directory}/layered.tar`);
  });
  afterAll(async () => {
    await dockerd[Symbol.asyncDispose]();
    await t[Symbol.asyncDispose]();
  });

  const peer = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runCommand('docker', ['-H', `unix://${dockerd.socket}`, ...args], {
      env: { DOCKER_CONFIG: `${t.directory}/docker-config` },
    });
    if (code !== 0) throw new Error(`dockerd: docker ${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  };
  const skopeo = (...args: string[]): string =>
    t.namespace.run('skopeo', ['--insecure-policy', '--tmpdir', t.directory, ...args]);
  const files = (archive: string): Map<string, Buffer> => {
    const names = execFileSync('tar', ['-tf', archive], { encoding: 'utf8' }).split('\n').filter(Boolean);
    return new Map(
      names
        .filter((name) => !name.endsWith('/'))
        .map((name) => [name, execFileSync('tar', ['-xOf', archive, name], { maxBuffer: 1 << 28 })]),
    );
  };

  it('saves what dockerd and skopeo load with the same ids, and loads it back to the same bytes', async () => {
    const path = `${t.directory}/saved.tar`;
    await t.ok('save', '-o', path, 'layered', 'busybox');
    const before = files(path);
    for (const [name, bytes] of before) {
      const [, hex] = /^blobs\/sha256\/(.*)$/.exec(name) ?? [];
      if (hex !== undefined) expect(createHash('sha256').update(bytes).digest('hex')).toBe(hex);
    }
    expect(await peer('load', '-i', path)).toBe(
      'Loaded image: layered:1\nLoaded image: layered:2\nLoaded image: busybox:latest',
    );
    expect(await peer('inspect', '-f', '{{.Id}}', 'layered:2', 'busybox')).toBe(`${layered.id}\n${t.busybox.id}`);
    expect(await peer('run', '--rm', '--network', 'none', 'busybox', 'echo', 'hello')).toBe('hello');
    for (const source of [`docker-archive:${path}:layered:1`, `docker-archive:${path}:busybox:latest`]) {
      const target = `${t.directory}/skopeo-dir`;
      skopeo('copy', source, `dir:${target}`);
      const manifest = JSON.parse(readFileSync(`${target}/manifest.json`, 'utf8')) as { config: { digest: string } };
      expect([layered.id, t.busybox.id]).toContain(manifest.config.digest);
    }
    const again = `${t.directory}/saved-again.tar`;
    await t.ok('rmi', 'layered:1', 'layered:2');
    await t.ok('load', '-qi', path);
    await t.ok('save', '-o', again, 'layered', 'busybox');
    expect(files(again)).toEqual(before);
  });
});
