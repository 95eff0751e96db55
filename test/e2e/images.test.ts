import { readFileSync, writeFileSync } from 'node:fs';
import {
  debianImage,
  dockerArchive,
  examineImageStore,
  gzipLayer,
  indexEntry,
  makeImage,
  makeIndex,
  ociArchive,
  plainTar,
  sha256,
  tarDirectory,
  writeBusyboxRootfs,
} from '@flotilla/testkit';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

const cacheDirectory = join(import.meta.dirname, '../../.cache');

describe('images', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine({ pull: false });
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const layerDirectories = async () => (await t.ok('images', '-aq')).split('\n').filter(Boolean).length;

  it('pulls by tag and by digest, lists, inspects and removes', async () => {
    const reference = `${t.registry.address}/busybox`;
    const pulled = await t.ok('pull', reference);
    expect(pulled).toContain('Using default tag: latest');
    expect(pulled).toContain('latest: Pulling from busybox');
    expect(pulled).toContain(`Digest: ${t.busybox.manifestDigest}`);
    expect(pulled).toContain(`Status: Downloaded newer image for ${reference}:latest`);
    expect(await t.ok('pull', reference)).toContain(`Status: Image is up to date for ${reference}:latest`);
    expect(await t.ok('images', '--no-trunc', '--format', '{{.ID}} {{.Repository}}:{{.Tag}}')).toBe(
      `${t.busybox.id} ${reference}:latest`,
    );
    expect(
      await t.ok('inspect', '-f', '{{.Id}} {{json .RepoDigests}} {{.Architecture}} {{json .Config.Cmd}}', reference),
    ).toBe(`${t.busybox.id} ["${reference}@${t.busybox.manifestDigest}"] amd64 ["sh"]`);
    await t.ok('pull', `${reference}@${t.busybox.manifestDigest}`);
    await t.ok('tag', reference, 'mine:v1');
    expect(await t.ok('rmi', 'mine:v1')).toBe('Untagged: mine:v1');
    expect(await t.ok('history', '--format', '{{.CreatedBy}}', reference)).toContain('fixture layer 0');
    const removed = await t.ok('rmi', '-f', t.busybox.id);
    expect(removed).toContain(`Deleted: ${t.busybox.id}`);
    expect(await layerDirectories()).toBe(0);
  });

  it('loads, pushes, pulls, runs and commits an image of 200 layers', async () => {
    const tiny = Array.from({ length: 199 }, (_, at) =>
      gzipLayer(plainTar([[`layer-${at}`, Buffer.from(String(at))]])),
    );
    const image = makeImage([...t.busybox.layers, ...tiny], { Cmd: ['sh'], Env: ['PATH=/bin'] });
    const name = `${t.registry.address}/tall:latest`;
    const archive = join(t.directory, 'tall.tar');
    writeFileSync(archive, dockerArchive(image, [name]));
    await t.ok('load', '-q', '-i', archive);
    await t.ok('push', '-q', name);
    await t.ok('rmi', name);
    await t.ok('pull', '-q', name);
    const count = ['sh', '-c', 'ls / | grep -c ^layer- && cat /layer-0 /layer-198'];
    expect(await t.ok('run', '--rm', name, ...count)).toBe('199\n0198');
    await t.ok('run', '--name', 'tall', name, 'sh', '-c', 'rm /layer-7 && touch /layer-199');
    await t.ok('commit', 'tall', 'taller');
    expect(await t.ok('run', '--rm', 'taller', ...count)).toBe('199\n0198');
    expect(await t.ok('inspect', '-f', '{{len .RootFS.Layers}}', 'taller')).toBe('201');
    await t.ok('rm', 'tall');
    await t.ok('rmi', 'taller', name);
    expect(await layerDirectories()).toBe(0);
  });

  it('keeps the images of two platforms under one name', async () => {
    const name = `${t.registry.address}/two`;
    const foreign = makeImage(t.busybox.layers, { Cmd: ['echo', 'foreign'], Env: ['PATH=/bin'] }, 's390x');
    await t.registry.push(t.busybox, 'two', 'own');
    await t.registry.push(foreign, 'two', 'foreign');
    const index = makeIndex([indexEntry(foreign, 'linux/s390x'), indexEntry(t.busybox, 'linux/amd64')]);
    t.registry.pushManifest('two', 'latest', index);
    await t.ok('pull', '-q', name);
    await t.ok('pull', '-q', '--platform', 'linux/s390x', name);
    const rows = (
      await t.ok('images', '--no-trunc', '--digests', '--format', '{{.ID}} {{.Tag}} {{.Digest}}', name)
    ).split('\n');
    expect(rows.sort()).toEqual([t.busybox.id, foreign.id].map((id) => `${id} latest ${index.digest}`).sort());
    expect(await t.ok('run', '--rm', '--pull', 'never', name, 'echo', 'own')).toBe('own');
    expect(await t.ok('run', '--rm', '--pull', 'never', '--platform', 'linux/s390x', name)).toBe('foreign');
    expect(await t.ok('inspect', '-f', '{{.Id}}', name)).toBe(t.busybox.id);
    expect(await t.ok('image', 'prune', '-f')).toBe('Total reclaimed space: 0B');
    const removed = await t.ok('rmi', name);
    for (const { id } of [t.busybox, foreign]) expect(removed).toContain(`Deleted: ${id}`);
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });
  });

  it('pulls an image of about 10,000 files whole', async () => {
    const image = debianImage(cacheDirectory);
    await t.registry.push(image, 'debian', 'bookworm');
    await t.ok('pull', '-q', `${t.registry.address}/debian:bookworm`);
    const script =
      'test "$(stat -c %a /tmp)" = 1777 && test -u /usr/bin/passwd && dpkg -s bash >/dev/null && cat /etc/debian_version';
    expect(await t.ok('run', '--rm', `${t.registry.address}/debian:bookworm`, 'sh', '-c', script)).toMatch(/^12\./);
    await t.ok('rmi', `${t.registry.address}/debian:bookworm`);
  });

  it('loads docker archives and OCI layouts, compressed or not', async () => {
    writeFileSync(`${t.directory}/docker.tar`, dockerArchive(t.busybox, ['loaded:docker']));
    writeFileSync(`${t.directory}/oci.tar`, ociArchive(t.busybox, 'docker.io/library/loaded:oci'));
    expect(await t.ok('load', '-i', `${t.directory}/docker.tar`)).toContain('Loaded image: loaded:docker');
    expect(await t.ok('load', '-i', `${t.directory}/oci.tar`)).toContain('Loaded image: loaded:oci');
    const { gzipSync } = await import('node:zlib');
    writeFileSync(`${t.directory}/docker.tar.gz`, gzipSync(readFileSync(`${t.directory}/docker.tar`)));
    expect(await t.ok('load', '-i', `${t.directory}/docker.tar.gz`)).toContain('Loaded image: loaded:docker');
    expect(await t.ok('run', '--rm', 'loaded:oci', 'echo', 'ok')).toBe('ok');
    expect(await t.ok('inspect', '-f', '{{.Id}}', 'loaded:docker')).toBe(t.busybox.id);
    await t.ok('rmi', 'loaded:docker', 'loaded:oci');
  });

  it('imports a root file system with changes', async () => {
    const root = `${t.directory}/import-root`;
    mkdirSync(root);
    writeBusyboxRootfs(root);
    writeFileSync(`${t.directory}/root.tar`, tarDirectory(root));
    const id = await t.ok(
      'import',
      '-c',
      'CMD ["echo","imported"]',
      '-c',
      'ENV A=b',
      '-m',
      'a message',
      `${t.directory}/root.tar`,
      'imported:1',
    );
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await t.ok('run', '--rm', 'imported:1')).toBe('imported');
    await t.ok('rmi', 'imported:1');
  });

  it('applies whiteouts and replaced files over layers', async () => {
    const base = gzipLayer(
      plainTar([
        { name: 'keep/', type: '5' },
        ['keep/a', Buffer.from('old')],
        ['gone', Buffer.from('x')],
        { name: 'dir/', type: '5' },
        ['dir/hidden', Buffer.from('x')],
      ]),
    );
    const busybox = t.busybox.layers[0];
    if (busybox === undefined) throw new Error('no busybox layer');
    const top = gzipLayer(
      plainTar([
        ['keep/a', Buffer.from('new')],
        ['.wh.gone', Buffer.alloc(0)],
        { name: 'dir/', type: '5' },
        ['dir/.wh..wh..opq', Buffer.alloc(0)],
        ['dir/shown', Buffer.from('y')],
      ]),
    );
    const image = makeImage([busybox, base, top], { Env: ['PATH=/bin'], Cmd: ['sh'] });
    await t.registry.push(image, 'whiteouts', 'latest');
    const out = await t.ok(
      'run',
      '--rm',
      `${t.registry.address}/whiteouts`,
      'sh',
      '-c',
      'cat /keep/a; ls /gone 2>/dev/null; ls /dir',
    );
    expect(out).toBe('newshown');
    await t.ok('rmi', `${t.registry.address}/whiteouts`);
  });

  it('refuses to remove an image that a container uses', async () => {
    const reference = `${t.registry.address}/busybox:latest`;
    await t.ok('pull', '-q', reference);
    const id = await t.ok('create', reference);
    const refused = await t.docker(['rmi', reference]);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(
      `conflict: unable to remove repository reference "${reference}" (must force) - container ${id.slice(0, 12)} is using its referenced image`,
    );
    await t.ok('rm', id);
    await t.ok('rmi', reference);
  });

  // What dockerd 20.10 says and tells of, recorded case by case.
  it.each<[string, string[][], string[], string[], string]>([
    ['by tag, of two', [['tag', 'box:1', 'box:2']], ['rmi', 'box:1'], ['Untagged: box:1'], 'untag'],
    ['by its only tag', [], ['rmi', 'box:1'], ['Untagged: box:1', 'Deleted: ID', 'Deleted: LAYER'], 'untag delete'],
    ['by id, with one tag', [], ['rmi', 'SHORT'], ['Untagged: box:1', 'Deleted: ID', 'Deleted: LAYER'], 'untag delete'],
    [
      'by id, with tags in two repositories',
      [['tag', 'box:1', 'other:1']],
      ['rmi', 'SHORT'],
      [
        'Error response from daemon: conflict: unable to delete SHORT (must be forced) - image is referenced in multiple repositories',
      ],
      '',
    ],
    [
      'by id and force, with tags in two repositories',
      [['tag', 'box:1', 'other:1']],
      ['rmi', '-f', 'SHORT'],
      ['Untagged: box:1', 'Untagged: other:1', 'Deleted: ID', 'Deleted: LAYER'],
      'untag untag delete',
    ],
    [
      'by id, used by a stopped container',
      [['create', '--name', 'user', 'box:1']],
      ['rmi', 'SHORT'],
      [
        'Error response from daemon: conflict: unable to delete SHORT (must be forced) - image is being used by stopped container USER',
      ],
      '',
    ],
    [
      'by tag and force, used by a running container',
      [['run', '-d', '--name', 'user', 'box:1', 'sleep', '1000']],
      ['rmi', '-f', 'box:1'],
      ['Untagged: box:1'],
      'untag',
    ],
    [
      'by id and force, used by a running container',
      [['run', '-d', '--name', 'user', 'box:1', 'sleep', '1000']],
      ['rmi', '-f', 'SHORT'],
      [
        'Error response from daemon: conflict: unable to delete SHORT (cannot be forced) - image is being used by running container USER',
      ],
      '',
    ],
    [
      'by a digest that it has not',
      [],
      ['rmi', `box@${sha256(Buffer.from(''))}`],
      [`Error response from daemon: No such image: box@${sha256(Buffer.from(''))}`],
      '',
    ],
  ])('removes %s as dockerd does', async (_what, before, command, lines, events) => {
    const image = makeImage(t.busybox.layers, { Cmd: ['sh'], Env: ['PATH=/bin'], Labels: { removed: 'as dockerd' } });
    writeFileSync(`${t.directory}/box.tar`, dockerArchive(image, ['box:1']));
    await t.ok('load', '-q', '-i', `${t.directory}/box.tar`);
    let user = '';
    for (const step of before) user = await t.ok(...step);
    const short = image.id.slice(7, 19);
    const since = String(Date.now() / 1000);
    const { stdout, stderr } = await t.docker(command.map((word) => word.replace('SHORT', short)));
    const shown = (text: string): string =>
      text
        .replaceAll(image.id, 'ID')
        .replaceAll(short, 'SHORT')
        .replaceAll(image.layers[0]?.diffId ?? '', 'LAYER')
        .replaceAll(user === '' ? 'USER' : user.slice(0, 12), 'USER');
    expect(
      shown(stdout + stderr)
        .trim()
        .split('\n'),
    ).toEqual(lines);
    const told = await t.ok(
      'events',
      '--since',
      since,
      '--until',
      String(Date.now() / 1000),
      '--filter',
      'type=image',
      '--format',
      '{{.Action}}',
    );
    expect(told.split('\n').join(' ')).toBe(events);
    if (before.some((step) => step.includes('user'))) await t.ok('rm', '-f', 'user');
    const left = (await t.ok('images', '-q', '--no-trunc', '--filter', 'label=removed')).split('\n').filter(Boolean);
    if (left.length > 0) await t.ok('rmi', '-f', ...new Set(left));
    expect(await t.ok('images', '-aq', '--filter', 'label=removed')).toBe('');
  });

  it.each([
    ['run', ['run', 'absent'], 'Unable to find image'],
    ['inspect', ['image', 'inspect', 'absent'], 'No such image: absent'],
    ['rmi', ['rmi', 'absent'], 'No such image: absent'],
    ['tag', ['tag', 'absent', 'x'], 'No such image: absent'],
    [
      'pull of a bad reference',
      ['pull', 'library/UPPER'],
      'invalid reference format: repository name (library/UPPER) must be lowercase',
    ],
  ])('says clearly what is missing: %s', async (_what, args, phrase) => {
    const result = await t.docker(args);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toContain(phrase);
  });

  it('says what a registry does not have', async () => {
    const result = await t.docker(['pull', `${t.registry.address}/busybox:nope`]);
    expect(result.code).toBe(1);
    expect(result.stderr).toContain(`manifest for ${t.registry.address}/busybox:nope not found: manifest unknown`);
  });

  it.each([
    ['truncated', (tar: Buffer) => tar.subarray(0, tar.length / 2)],
    ['not a tar', () => Buffer.from('this is not an archive'.repeat(100))],
    ['empty', () => Buffer.alloc(0)],
  ])('refuses a %s archive and keeps nothing', async (_what, damage) => {
    const before = await layerDirectories();
    const path = `${t.directory}/damaged.tar`;
    writeFileSync(path, damage(dockerArchive(t.busybox, ['damaged:1'])));
    const result = await t.docker(['load', '-i', path]);
    expect(result.code).not.toBe(0);
    expect(result.stderr.trim().split('\n')).toHaveLength(1);
    expect(await layerDirectories()).toBe(before);
  });

  it('examines its store and takes a corrupt blob again from the registry', async () => {
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });
    const reference = `${t.registry.address}/busybox`;
    await t.ok('pull', '-q', reference);
    const digest = t.busybox.layers[0]?.digest ?? '';
    const blob = `${t.engine.dataRoot}/image/content/sha256/${digest.slice(7, 9)}/${digest.slice(7)}`;
    writeFileSync(blob, Buffer.alloc(readFileSync(blob).length));
    const finding = { kind: 'blob corrupt', subject: digest, imageIds: [t.busybox.id], repaired: false };
    expect(await examineImageStore(t.engine)).toMatchObject({ exitCode: 1, findings: [finding] });
    expect(await examineImageStore(t.engine, { repair: true })).toMatchObject({ exitCode: 1, findings: [finding] });
    expect(await t.ok('run', '--rm', reference, 'echo', 'ok')).toBe('ok');
    await t.ok('pull', '-q', reference);
    expect(await examineImageStore(t.engine)).toEqual({ exitCode: 0, findings: [] });
    await t.ok('rmi', reference);
  });
});
