import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { dockerArchive, makeImage, ociArchive, plainTar, sha256, type FixtureLayer } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint, takeRecords, type Footprint } from './footprint.js';
import { expectNothingOutside, expectOneSentence, layerOf, text, type Entries } from './hostile-fixtures.js';
import { startTestEngine, type CommandResult, type TestEngine } from './test-engine.js';

describe('hostile archives', () => {
  let t: TestEngine;
  let busybox: FixtureLayer;
  let whole: Footprint;
  const secret = `flotilla-escape-${randomBytes(6).toString('hex')}`;

  beforeAll(async () => {
    t = await startTestEngine();
    busybox = t.busybox.layers[0] ?? layerOf([]);
    whole = await takeFootprint(t);
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  describe('archives for load', () => {
    const load = async (archive: Buffer): Promise<CommandResult> => {
      writeFileSync(`${t.directory}/hostile.tar`, archive);
      return t.docker(['load', '-i', `${t.directory}/hostile.tar`]);
    };
    const manifestOf = (entries: unknown, more: Entries = []): Buffer =>
      plainTar([['manifest.json', text(JSON.stringify(entries))], ...more]);
    const config = (): [string, Buffer] => ['config.json', makeImage([layerOf([])]).configJson];

    it('takes member names that climb or are absolute as names only', async () => {
      const footprint = await takeRecords(t);
      const layer = layerOf([['file', text('in')]]);
      const image = makeImage([busybox, layer], { Env: ['PATH=/bin'] });
      const archive = plainTar([
        [`../../../../../../../../tmp/${secret}`, layer.tar],
        ['/busybox.tar', busybox.tar],
        [`/etc/${secret}`, image.configJson],
        { name: 'linked.tar', type: '2', linkname: `../../../tmp/${secret}` },
        [
          'manifest.json',
          text(
            JSON.stringify([
              { Config: `/etc/${secret}`, RepoTags: ['climbing:1'], Layers: ['busybox.tar', 'linked.tar'] },
            ]),
          ),
        ],
      ]);
      expect((await load(archive)).stdout).toContain('Loaded image: climbing:1');
      expectNothingOutside(t, secret);
      expect(await t.ok('run', '--rm', 'climbing:1', 'cat', '/file')).toBe('in');
      await t.ok('rmi', 'climbing:1');
      await footprint.expectUnchanged();
    });

    it.each<[string, () => Buffer, RegExp]>([
      [
        'names a missing config',
        () => manifestOf([{ Config: 'absent.json', RepoTags: ['x:1'], Layers: [] }]),
        /does not contain "absent\.json"/,
      ],
      [
        'names a missing layer',
        () => manifestOf([{ Config: 'config.json', RepoTags: ['x:1'], Layers: ['absent.tar'] }], [config()]),
        /does not contain "absent\.tar"/,
      ],
      [
        'names a file of the machine',
        () => manifestOf([{ Config: '../../../../../../../etc/passwd', RepoTags: ['x:1'], Layers: [] }]),
        /does not contain "\.\.\/.*etc\/passwd"/,
      ],
      [
        'links to a file of the machine',
        () =>
          manifestOf(
            [{ Config: 'config.json', RepoTags: ['x:1'], Layers: ['layer.tar'] }],
            [config(), { name: 'layer.tar', type: '2', linkname: '/etc/passwd' }],
          ),
        /does not contain "layer\.tar"/,
      ],
      [
        'has links that run in a circle',
        () =>
          manifestOf(
            [{ Config: 'a', RepoTags: ['x:1'], Layers: [] }],
            [
              { name: 'a', type: '2', linkname: 'b' },
              { name: 'b', type: '2', linkname: 'a' },
            ],
          ),
        /does not contain "a"/,
      ],
      [
        'has too few layers',
        () => manifestOf([{ Config: 'config.json', RepoTags: ['x:1'], Layers: [] }], [config()]),
        /layers length mismatch: expected 1, got 0/,
      ],
      [
        'has another layer than the config',
        () =>
          manifestOf(
            [{ Config: 'config.json', RepoTags: ['x:1'], Layers: ['l'] }],
            [config(), ['l', layerOf([['f', text('x')]]).tar]],
          ),
        /verification failed for digest sha256:|wrong digest|mismatch/,
      ],
      [
        'has a bad name',
        () => manifestOf([{ Config: 'config.json', RepoTags: ['UPPER::x'], Layers: [] }], [config()]),
        /invalid reference format/,
      ],
      [
        'has a garbage config',
        () => manifestOf([{ Config: 'c', RepoTags: null, Layers: [] }], [['c', text('garbage')]]),
        /not valid JSON|invalid/,
      ],
      ['has a manifest that is no list', () => manifestOf({ Config: 'c' }), /must be a list|invalid/],
      ['has a manifest that is no JSON', () => plainTar([['manifest.json', text('[{]')]]), /not valid JSON|invalid/],
      ['has nothing in it', () => plainTar([]), /does not contain a manifest\.json/],
      [
        'has an OCI layout with a wrong digest',
        () => {
          const archive = ociArchive(makeImage([busybox]), 'docker.io/library/x:1');
          const at = archive.indexOf('"schemaVersion":2,"mediaType"');
          archive.write('"schemaVersion":2,"mediaTypo"', at);
          return archive;
        },
        /has another digest/,
      ],
      [
        'holds a hostile layer',
        () =>
          dockerArchive(makeImage([busybox, layerOf([{ name: secret, type: '1', linkname: '/etc/passwd' }])]), ['x:1']),
        /no such file or directory/,
      ],
      [
        'holds a layer cut short',
        () => {
          const layer = layerOf([[secret, randomBytes(20_000)]]);
          const tar = layer.tar.subarray(0, 10_000);
          return dockerArchive(makeImage([{ ...layer, tar, diffId: sha256(tar) }]), ['x:1']);
        },
        /unexpected EOF/,
      ],
    ])('an archive that %s', async (_what, make, phrase) => {
      const footprint = await takeRecords(t);
      expectOneSentence(await load(make()), phrase);
      expectNothingOutside(t, secret);
      await footprint.expectUnchanged();
    });
  });

  it('imports nothing that is no tar, and nothing outside', async () => {
    const footprint = await takeRecords(t);
    const bad = await t.docker(['import', '-', 'bad:1'], { input: 'no tar at all '.repeat(100) });
    expectOneSentence(bad, /invalid tar header/);
    await footprint.expectUnchanged();
    const climbing = plainTar([
      [`../../../${secret}`, text('in')],
      ['bin/busybox', text('x')],
    ]);
    await t.docker(['import', '-', 'climbing:2'], { input: climbing });
    expectNothingOutside(t, secret);
    await t.ok('rmi', 'climbing:2');
    await footprint.expectUnchanged();
  });

  it('goes on serving, and all of this has left nothing', async () => {
    expect(await t.ok('run', '--rm', 'busybox', 'echo', 'still serving')).toBe('still serving');
    await whole.expectUnchanged();
  });
});
