import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isEngineError } from '@flotilla/errors';
import {
  chainIds,
  formatPlatform,
  mediaTypes,
  parseImageConfig,
  parseManifest,
  parsePlatform,
  platformMatches,
  renderRunConfig,
  selectManifests,
  sha256Of,
} from './index.js';

const bytes = (value: unknown) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value));
const digest = sha256Of('x');
const descriptor = { mediaType: mediaTypes.ociLayerGzip, digest, size: 3 };
const entry = (platform: string) => {
  const [os, architecture, variant] = platform.split('/');
  return {
    mediaType: mediaTypes.ociManifest,
    digest: sha256Of(platform),
    size: 1,
    platform: { os, architecture, variant },
  };
};

describe('parseManifest', () => {
  it('reads a manifest and an index', () => {
    const manifest = parseManifest(bytes({ schemaVersion: 2, config: descriptor, layers: [descriptor] }));
    expect(manifest).toMatchObject({
      kind: 'manifest',
      mediaType: mediaTypes.ociManifest,
      layers: [{ digest, size: 3 }],
    });
    const index = parseManifest(
      bytes({ schemaVersion: 2, mediaType: mediaTypes.dockerManifestList, manifests: [entry('linux/amd64')] }),
    );
    expect(index).toMatchObject({ kind: 'index', mediaType: mediaTypes.dockerManifestList });
  });

  it.each([
    ['{', '', 'not valid JSON'],
    ['[]', '', 'must be an object'],
    [{ schemaVersion: 1 }, '', 'schema 1 are not supported'],
    [{ schemaVersion: 2 }, mediaTypes.dockerSchema1Signed, 'schema 1 are not supported'],
    [{ schemaVersion: 3 }, '', 'unsupported schema version 3'],
    [{ schemaVersion: 2 }, '', 'config is missing'],
    [{ schemaVersion: 2, mediaType: 'application/x' }, '', 'unsupported manifest media type "application/x"'],
    [{ schemaVersion: 2, config: { ...descriptor, size: -1 }, layers: [] }, '', 'size must be a size in bytes'],
    [
      { schemaVersion: 2, config: { ...descriptor, digest: 'sha256:../../x' }, layers: [] },
      '',
      'invalid checksum digest format',
    ],
    [
      { schemaVersion: 2, config: descriptor, layers: [], manifests: [] },
      mediaTypes.ociManifest,
      'a manifest with manifests',
    ],
    [{ schemaVersion: 2, config: descriptor, layers: [], manifests: [] }, mediaTypes.ociIndex, 'an index with layers'],
  ])('refuses %j', (document, type, message) => {
    expect(() => parseManifest(bytes(document), type)).toThrow(message);
  });

  it('survives any JSON', () => {
    const key = fc.constantFrom(
      'schemaVersion',
      'mediaType',
      'config',
      'layers',
      'manifests',
      'digest',
      'size',
      'platform',
      'rootfs',
      'diff_ids',
    );
    const value = fc.letrec((tie) => ({
      node: fc.oneof(
        { depthSize: 'small' },
        fc.constantFrom(null, 2, -1, '', digest, mediaTypes.ociIndex, true),
        fc.array(tie('node'), { maxLength: 3 }),
        fc.dictionary(key, tie('node'), { maxKeys: 5 }),
      ),
    })).node;
    fc.assert(
      fc.property(fc.dictionary(key, value), (document) => {
        for (const parse of [parseManifest, parseImageConfig]) {
          try {
            parse(bytes({ schemaVersion: 2, ...document }));
          } catch (error) {
            if (!isEngineError(error, 'invalidArgument')) throw error;
          }
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('platforms', () => {
  const index = parseManifest(
    bytes({
      schemaVersion: 2,
      manifests: [
        'unknown/unknown',
        'linux/arm/v5',
        'linux/arm/v7',
        'linux/amd64',
        'linux/arm64/v8',
        'windows/amd64',
      ].map(entry),
    }),
  );
  if (index.kind !== 'index') throw new Error('not an index');
  const best = (platform: string) =>
    selectManifests(index, parsePlatform(platform)).map((it) => formatPlatform(it.platform ?? parsePlatform('linux')));

  it('picks the best entry first', () => {
    expect(best('linux/amd64')).toEqual(['linux/amd64']);
    expect(best('linux/x86_64/v1')).toEqual(['linux/amd64']);
    expect(best('linux/amd64/v3')).toEqual(['linux/amd64']);
    expect(best('linux/arm64')).toEqual(['linux/arm64/v8', 'linux/arm/v7', 'linux/arm/v5']);
    expect(best('linux/arm/v6')).toEqual(['linux/arm/v5']);
    expect(best('linux/s390x')).toEqual([]);
  });

  it('parses what --platform takes', () => {
    expect(formatPlatform(parsePlatform('arm64'))).toBe('linux/arm64');
    expect(formatPlatform(parsePlatform('linux/ARMhf'))).toBe('linux/arm/v7');
    expect(() => parsePlatform('a/b/c/d')).toThrow('"a/b/c/d" is an invalid OS/Arch/Variant format');
    expect(() => parsePlatform('linux/a b')).toThrow('invalid component');
    expect(() => parsePlatform('nonsense')).toThrow('unknown operating system or architecture');
    expect(platformMatches(parsePlatform('linux/amd64'), parsePlatform('linux/arm64'))).toBe(false);
  });
});

describe('image configurations', () => {
  it('are read with nulls as Go writes them', () => {
    const config = parseImageConfig(
      bytes({
        architecture: 'amd64',
        os: 'linux',
        created: '2024-05-06T07:08:09.123456789Z',
        config: {
          Env: null,
          Cmd: ['sh'],
          Entrypoint: null,
          Labels: { a: 'b' },
          ExposedPorts: { '80/tcp': {} },
          Volumes: null,
        },
        rootfs: { type: 'layers', diff_ids: [digest] },
        history: [{ created_by: 'x', empty_layer: true }],
      }),
    );
    expect(config.run).toMatchObject({ cmd: ['sh'], entrypoint: undefined, exposedPorts: ['80/tcp'], volumes: [] });
    expect(config.run.labels.get('a')).toBe('b');
    expect(config.diffIds).toEqual([digest]);
    expect(renderRunConfig(config.run)).toEqual({ Cmd: ['sh'], ExposedPorts: { '80/tcp': {} }, Labels: { a: 'b' } });
  });

  it('are refused when they are none', () => {
    expect(() => parseImageConfig(bytes({}))).toThrow('invalid image JSON, no RootFS key');
    expect(() => parseImageConfig(bytes({ rootfs: { diff_ids: ['x'] } }))).toThrow('invalid checksum digest format');
    expect(() => parseImageConfig(bytes({ rootfs: {}, config: { Env: [1] } }))).toThrow(
      'Env must be a list of strings',
    );
    expect(() => parseImageConfig(bytes({ rootfs: {}, created: 'now' }))).toThrow('created must be a time');
  });

  it('give chain ids', () => {
    const a = sha256Of('a');
    const b = sha256Of('b');
    expect(chainIds([])).toEqual([]);
    expect(chainIds([a, b])).toEqual([a, sha256Of(`${a} ${b}`)]);
  });
});
