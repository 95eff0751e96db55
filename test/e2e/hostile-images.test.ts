import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { gzipLayer, makeImage, plainTar, sha256, type FixtureImage, type FixtureLayer } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enterNamespace } from './enter-namespace.js';
import { takeFootprint, takeRecords, type Footprint } from './footprint.js';
import {
  expectNothingOutside,
  expectOneSentence,
  layerOf,
  pax,
  text,
  types,
  withBlob,
  withConfig,
  withManifest,
  type Entries,
} from './hostile-fixtures.js';
import { startScriptedRegistry, type ScriptedRegistry } from './scripted-registry.js';
import { startTestEngine, type TestEngine } from './test-engine.js';
import { zstdCompressSync } from './zstd.js';

describe('hostile images', () => {
  let t: TestEngine;
  let registry: ScriptedRegistry;
  let inside: Disposable;
  let busybox: FixtureLayer;
  let whole: Footprint;
  const secret = `flotilla-escape-${randomBytes(6).toString('hex')}`;
  let count = 0;

  beforeAll(async () => {
    t = await startTestEngine();
    inside = enterNamespace(t.namespace);
    registry = await startScriptedRegistry();
    busybox = t.busybox.layers[0] ?? layerOf([]);
    whole = await takeFootprint(t);
  });
  afterAll(async () => {
    await registry[Symbol.asyncDispose]();
    inside[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
  });

  const serve = (image: FixtureImage): string => {
    count += 1;
    registry.image(`hostile-${count}`, image);
    return `${registry.address}/hostile-${count}:latest`;
  };
  describe('layers that would leave their root stay in it', () => {
    it.each<[string, Entries, string]>([
      ['a name with ..', [[`../../../../${secret}`, text('in')]], `cat /${secret}`],
      ['.. in the middle', [[`a/../../b/../../../${secret}`, text('in')]], `cat /${secret}`],
      ['an absolute name', [[`/tmp/${secret}`, text('in')]], `cat /tmp/${secret}`],
      [
        'a file through an absolute link',
        [
          { name: 'out', type: '2', linkname: '/tmp' },
          { name: 'tmp/', type: '5', mode: 0o1777 },
          [`out/${secret}`, text('in')],
        ],
        `cat /tmp/${secret}`,
      ],
      [
        'a file through a relative link that climbs',
        [{ name: 'a/out', type: '2', linkname: '../../../../../../..' }, [`a/out/${secret}`, text('in')]],
        `cat /${secret}`,
      ],
      [
        'a file through a chain of links',
        [
          { name: 'one', type: '2', linkname: 'two/..' },
          { name: 'two', type: '2', linkname: '../../..' },
          [`one/tmp/${secret}`, text('in')],
        ],
        `cat /tmp/${secret}`,
      ],
      [
        'a link replaced by a directory and written through',
        [{ name: 'd', type: '2', linkname: '/etc' }, { name: 'd', type: '5' }, [`d/${secret}`, text('in')]],
        `cat /d/${secret} && test ! -L /d`,
      ],
      [
        'a file over a link does not write through it',
        [{ name: 'hosts-link', type: '2', linkname: `/tmp/${secret}` }, ['hosts-link', text('in')]],
        `cat /hosts-link && test ! -e /tmp/${secret}`,
      ],
      [
        'a link that points outside is kept as it is',
        [{ name: 'away', type: '2', linkname: `../../../../../../tmp/${secret}` }, ['x', text('in')]],
        `cat /x && test "$(readlink /away)" = ../../../../../../tmp/${secret}`,
      ],
      [
        'whiteouts through links',
        [{ name: 'loop', type: '2', linkname: '/' }, ['loop/.wh.home', Buffer.alloc(0)], ['x', text('in')]],
        'cat /x && test ! -e /home && test -d /root',
      ],
      [
        'an opaque marker through a link',
        [{ name: 'loop', type: '2', linkname: '../../var' }, ['loop/.wh..wh..opq', Buffer.alloc(0)], ['x', text('in')]],
        'cat /x && test -z "$(ls /var)"',
      ],
    ])('%s', async (_what, entries, command) => {
      const footprint = await takeRecords(t);
      const reference = serve(makeImage([busybox, layerOf(entries)], { Env: ['PATH=/bin'], Cmd: ['sh'] }));
      expect(await t.ok('run', '--rm', reference, 'sh', '-c', command)).toBe('in');
      expectNothingOutside(t, secret);
      await t.ok('rmi', reference);
      await footprint.expectUnchanged();
    });

    it('keeps set-user-ID bits, owners, capabilities and device nodes', async () => {
      const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex');
      const entries: Entries = [
        { name: 'suid', mode: 0o4755, uid: 12, gid: 34, data: text('x') },
        { name: 'sgid/', type: '5', mode: 0o3777 },
        pax('SCHILY.xattr.security.capability', capability),
        { name: 'capable', mode: 0o755, data: text('x') },
        { name: 'pipe', type: '6', mode: 0o600 },
        { name: 'dangling', type: '2', linkname: 'nowhere', uid: 7, gid: 8 },
      ];
      const reference = serve(makeImage([busybox, layerOf(entries)], { Env: ['PATH=/bin'] }));
      const script = 'stat -c "%n %a %u:%g %F" /suid /sgid /pipe /dangling; wc -c < /capable';
      expect(await t.ok('run', '--rm', reference, 'sh', '-c', script)).toBe(
        [
          '/suid 4755 12:34 regular file',
          '/sgid 3777 0:0 directory',
          '/pipe 600 0:0 fifo',
          '/dangling 777 7:8 symbolic link',
          '1',
        ].join('\n'),
      );
      const paths = execFileSync('find', [`${t.engine.dataRoot}/image/layers`, '-name', 'capable'], {
        encoding: 'utf8',
      });
      expect(execFileSync('getcap', [paths.trim()], { encoding: 'utf8' })).toContain('cap_net_bind_service');
      await t.ok('rmi', reference);
    });

    it('gives a container no device that its layers name', async () => {
      // The host's first disk or loop device; whether it exists does not matter.
      const device = Buffer.from(plainTar([{ name: 'disk', type: '4', mode: 0o666 }]));
      device.write('0000007\0', 329, 'latin1');
      device.write('0000000\0', 337, 'latin1');
      device.fill(' ', 148, 156);
      const sum = device.subarray(0, 512).reduce((total, byte) => total + byte, 0);
      device.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
      const reference = serve(makeImage([busybox, gzipLayer(device)], { Env: ['PATH=/bin'] }));
      const result = await t.docker([
        'run',
        '--rm',
        reference,
        'sh',
        '-c',
        'stat -c "%F %t:%T" /disk; cat /disk >/dev/null',
      ]);
      expect(result.stdout).toBe('block special file 7:0\n');
      expect(result.stderr).toMatch(/Operation not permitted|Permission denied/);
      await t.ok('rmi', reference);
    });
  });

  describe('layers that cannot be right are refused and leave nothing', () => {
    const good = (): FixtureLayer => layerOf([[secret, randomBytes(20_000)]]);
    const cut = (bytes: Buffer): Buffer => bytes.subarray(0, Math.floor(bytes.length / 2));
    const flipped = (bytes: Buffer): Buffer => {
      const copy = Buffer.from(bytes);
      copy.fill(0xff, copy.length >> 1, (copy.length >> 1) + 8);
      return copy;
    };
    const noise = gzipLayer(plainTar([[secret, randomBytes(100_000)]]));
    it.each<[string, () => FixtureLayer, RegExp]>([
      [
        'a hard link out of the root',
        () => layerOf([{ name: secret, type: '1', linkname: '../../../../../etc/passwd' }]),
        /failed to register layer: link \/flotilla-escape-\w+: no such file or directory: \/etc\/passwd/,
      ],
      [
        'a hard link through a link',
        () =>
          layerOf([
            { name: 'e', type: '2', linkname: '/etc' },
            { name: secret, type: '1', linkname: 'e/shadow' },
          ]),
        /failed to register layer: .*no such file or directory/,
      ],
      [
        'a hard link to itself',
        () => layerOf([{ name: secret, type: '1', linkname: secret }]),
        /failed to register layer: /,
      ],
      [
        'a hard link to the root',
        () => layerOf([{ name: secret, type: '1', linkname: '/' }]),
        /failed to register layer: /,
      ],
      [
        'a loop of links',
        () =>
          layerOf([
            { name: 'a', type: '2', linkname: 'b' },
            { name: 'b', type: '2', linkname: 'a' },
            [`a/${secret}`, text('x')],
          ]),
        /failed to register layer: .*too many levels of symbolic links/,
      ],
      [
        'a file used as a directory',
        () =>
          layerOf([
            ['f', text('x')],
            [`f/${secret}`, text('x')],
          ]),
        /failed to register layer: .*not a directory/,
      ],
      [
        'a whiteout of the parent',
        () => layerOf([['d/.wh...', Buffer.alloc(0)]]),
        /failed to register layer: invalid whiteout/,
      ],
      [
        'a whiteout of nothing',
        () => layerOf([['d/.wh.', Buffer.alloc(0)]]),
        /failed to register layer: invalid whiteout/,
      ],
      [
        'an unknown type of member',
        () => layerOf([{ name: secret, type: 'V' }]),
        /failed to register layer: .*unhandled tar header type/,
      ],
      [
        'a name that is too long',
        () => layerOf([pax('path', text(`${'x'.repeat(300)}/${secret}`)), ['short', text('x')]]),
        /failed to register layer: .*(file name too long|ENAMETOOLONG)/,
      ],
      ['a truncated tar', () => gzipLayer(cut(good().tar)), /failed to register layer: .*unexpected EOF/],
      ['no tar', () => gzipLayer(text('hello '.repeat(500))), /failed to register layer: .*invalid tar header/],
      ['truncated gzip', () => withBlob(noise, cut(noise.blob)), /failed to register layer: /],
      ['corrupt gzip', () => withBlob(noise, flipped(noise.blob)), /failed to register layer: /],
      ['truncated zstd', () => withBlob(noise, cut(zstdCompressSync(noise.tar))), /failed to register layer: /],
      ['corrupt zstd', () => withBlob(noise, flipped(zstdCompressSync(noise.tar))), /failed to register layer: /],
      [
        'a wrong DiffID',
        () => ({ ...good(), diffId: sha256(text('other')) }),
        /layer verification failed for digest sha256:/,
      ],
      [
        'an empty blob',
        () => withBlob(good(), Buffer.alloc(0)),
        /failed to register layer: |layer verification failed/,
      ],
    ])('%s', async (_what, make, phrase) => {
      const footprint = await takeRecords(t);
      const reference = serve(makeImage([busybox, make()]));
      expectOneSentence(await t.docker(['pull', reference]), phrase);
      expectNothingOutside(t, secret);
      await footprint.expectUnchanged();
    });

    it.each<[string, () => FixtureImage, RegExp]>([
      [
        'a wrong digest of a layer',
        () => makeImage([busybox, { ...good(), digest: sha256(text('another')) }]),
        /filesystem layer verification failed for digest sha256:/,
      ],
      [
        'a layer smaller than stated',
        () => withManifest(makeImage([good()]), ({ layers }) => layers.forEach((layer) => (layer.size += 10))),
        /unexpected EOF|verification failed/,
      ],
      [
        'a layer larger than stated',
        () => withManifest(makeImage([good()]), ({ layers }) => layers.forEach((layer) => (layer.size -= 10))),
        /verification failed for digest/,
      ],
      [
        'a negative size',
        () => withManifest(makeImage([good()]), ({ layers }) => layers.forEach((layer) => (layer.size = -1))),
        /size must be a size in bytes/,
      ],
      [
        'an absurd size',
        () => withManifest(makeImage([good()]), ({ layers }) => layers.forEach((layer) => (layer.size = 2 ** 60))),
        /size must be a size in bytes|unexpected EOF|verification failed/,
      ],
      [
        'a digest that is a path',
        () =>
          withManifest(makeImage([good()]), ({ layers }) =>
            layers.forEach((layer) => (layer.digest = 'sha256:../../../x')),
          ),
        /invalid checksum digest format/,
      ],
      [
        'a layer that the registry lacks',
        () =>
          withManifest(makeImage([good()]), ({ layers }) => layers.forEach((l) => (l.digest = sha256(text('absent'))))),
        /unknown blob/,
      ],
      [
        'garbage for a config',
        () => withConfig(makeImage([good()]), text('{"rootfs": garbage')),
        /not valid JSON|invalid/,
      ],
      ['a config that is a list', () => withConfig(makeImage([good()]), text('[]')), /must be an object/],
      ['an empty config', () => withConfig(makeImage([good()]), text('{}')), /no RootFS key/],
      [
        'a config with wrong types',
        () => withConfig(makeImage([good()]), text('{"rootfs":{"type":"layers","diff_ids":[]},"config":{"Env":5}}')),
        /Env must be a list of strings/,
      ],
      [
        'fewer diff_ids than layers',
        () => {
          const two = makeImage([busybox, good()]);
          return withConfig(two, makeImage([busybox]).configJson);
        },
        /layers from manifest don't match image configuration/,
      ],
      [
        'more diff_ids than layers',
        () => withConfig(makeImage([busybox]), makeImage([busybox, good()]).configJson),
        /layers from manifest don't match image configuration/,
      ],
      [
        'another operating system',
        () =>
          withConfig(
            makeImage([good()]),
            text(makeImage([good()]).configJson.toString().replace('"linux"', '"windows"')),
          ),
        /operating system "windows" cannot be used/,
      ],
      [
        'a manifest that is no JSON',
        () => ({ ...makeImage([good()]), manifestJson: text('<html>') }),
        /not valid JSON/,
      ],
      ['an empty manifest', () => ({ ...makeImage([good()]), manifestJson: Buffer.alloc(0) }), /not valid JSON/],
      [
        'a manifest of an unknown type',
        () =>
          withManifest(
            makeImage([good()]),
            (manifest) => ({ ...manifest, mediaType: 'application/x-teleport' }),
            'application/x-teleport',
          ),
        /unsupported manifest media type/,
      ],
      [
        'a manifest that is also an index',
        () => withManifest(makeImage([good()]), (manifest) => ({ ...manifest, manifests: [] })),
        /invalid manifest: a manifest with manifests/,
      ],
      [
        'an artifact that is no image',
        () =>
          withManifest(
            makeImage([good()]),
            ({ config }) => void (config.mediaType = 'application/vnd.cncf.helm.config.v1+json'),
          ),
        /unsupported media type application\/vnd\.cncf\.helm\.config/,
      ],
      [
        'schema 1',
        () => ({
          ...makeImage([good()]),
          manifestJson: text('{"schemaVersion":1,"name":"x","tag":"latest","fsLayers":[]}'),
          manifestType: types.schema1,
        }),
        /schema 1 are not supported/,
      ],
      [
        'a list without our platform',
        () => ({
          ...makeImage([good()]),
          manifestType: types.dockerList,
          manifestJson: text(
            JSON.stringify({
              schemaVersion: 2,
              mediaType: types.dockerList,
              manifests: [
                {
                  mediaType: types.dockerManifest,
                  digest: sha256(text('s390x')),
                  size: 5,
                  platform: { os: 'linux', architecture: 's390x' },
                },
              ],
            }),
          ),
        }),
        /no matching manifest for linux\/amd64\S* in the manifest list entries/,
      ],
      [
        'a list that names itself away',
        () => ({
          ...makeImage([good()]),
          manifestType: types.ociIndex,
          manifestJson: text(
            JSON.stringify({
              schemaVersion: 2,
              mediaType: types.ociIndex,
              manifests: [
                {
                  mediaType: types.ociManifest,
                  digest: sha256(text('absent')),
                  size: 5,
                  platform: { os: 'linux', architecture: 'amd64' },
                },
              ],
            }),
          ),
        }),
        /manifest unknown/,
      ],
    ])('%s', async (_what, make, phrase) => {
      const footprint = await takeRecords(t);
      const image = make();
      const reference = serve(image);
      for (const layer of image.layers) registry.blob(`hostile-${count}`, layer.blob, layer.digest);
      expectOneSentence(await t.docker(['pull', reference]), phrase);
      await footprint.expectUnchanged();
    });

    it('a size that is not that of a blob known already', async () => {
      const layer = good();
      const [right, wrong] = [makeImage([layer]), makeImage([layer], { Cmd: ['other'] })];
      await t.ok('pull', serve(right));
      const footprint = await takeRecords(t);
      const reference = serve(withManifest(wrong, ({ layers }) => layers.forEach((it) => (it.size += 1))));
      expectOneSentence(await t.docker(['pull', reference]), /verification failed for digest sha256:/);
      await footprint.expectUnchanged();
      await t.ok('rmi', right.id);
      expectOneSentence(await t.docker(['pull', reference]), /verification failed for digest sha256:/);
    });

    it('a manifest of another digest than asked for', async () => {
      const footprint = await takeRecords(t);
      const image = makeImage([busybox]);
      const wanted = sha256(text('what was asked for'));
      registry.manifest('swapped', wanted, image.manifestJson, image.manifestType);
      expectOneSentence(
        await t.docker(['pull', `${registry.address}/swapped@${wanted}`]),
        /manifest verification failed for digest sha256:/,
      );
      await footprint.expectUnchanged();
    });
  });

  it('takes every honest variant: zstd, OCI, plain layers, an index, duplicate and empty layers', async () => {
    const file = layerOf([['file', text('in')]]);
    const empty = layerOf([]);
    const compressed = { ...withBlob(file, zstdCompressSync(file.tar)), mediaType: types.ociLayerZstd };
    const plain = { ...withBlob(file, file.tar), mediaType: types.ociLayer };
    const mislabelled = { ...compressed, mediaType: file.mediaType };
    const asOci = (image: FixtureImage): FixtureImage =>
      withManifest(
        image,
        (manifest) => {
          manifest.mediaType = types.ociManifest;
          manifest.config.mediaType = types.ociConfig;
        },
        types.ociManifest,
      );
    const variants: [string, FixtureImage][] = [
      ['zstd', asOci(makeImage([busybox, compressed]))],
      ['plain', asOci(makeImage([busybox, plain]))],
      ['mislabelled', makeImage([busybox, mislabelled])],
      ['duplicates', makeImage([busybox, file, empty, file, empty, empty])],
    ];
    const footprint = await takeRecords(t);
    for (const [name, image] of variants) {
      registry.image(name, image);
      const list = text(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: types.ociIndex,
          manifests: [
            {
              mediaType: image.manifestType,
              digest: sha256(text('other')),
              size: 1,
              platform: { os: 'linux', architecture: 's390x' },
            },
            {
              mediaType: image.manifestType,
              digest: image.manifestDigest,
              size: image.manifestJson.length,
              platform: { os: 'linux', architecture: 'amd64' },
            },
          ],
        }),
      );
      registry.manifest(name, 'index', list, types.ociIndex);
      for (const tag of ['latest', 'index']) {
        const reference = `${registry.address}/${name}:${tag}`;
        expect([name, await t.ok('run', '--rm', reference, '/bin/cat', '/file')]).toEqual([name, 'in']);
        await t.ok('rmi', reference);
      }
    }
    await footprint.expectUnchanged();
  });

  it('goes on serving, and all of this has left nothing', async () => {
    expect(await t.ok('run', '--rm', 'busybox', 'echo', 'still serving')).toBe('still serving');
    await whole.expectUnchanged();
  });
});
