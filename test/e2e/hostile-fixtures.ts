import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { gzipLayer, plainTar, sha256, type FixtureImage, type FixtureLayer, type RawTarEntry } from '@flotilla/testkit';
import { expect } from 'vitest';
import type { CommandResult, TestEngine } from './test-engine.js';

export const types = {
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  schema1: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayerZstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
};

export type Entries = readonly ([string, Buffer] | RawTarEntry)[];
export const text = (value: string): Buffer => Buffer.from(value);
export const layerOf = (entries: Entries): FixtureLayer => gzipLayer(plainTar(entries));
export const withBlob = (layer: FixtureLayer, blob: Buffer): FixtureLayer => ({ ...layer, blob, digest: sha256(blob) });

/** PAX header with one record for the entry that follows. */
export function pax(key: string, value: Buffer): RawTarEntry {
  const rest = Buffer.concat([text(` ${key}=`), value, text('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return { name: 'pax', type: 'x', data: Buffer.concat([text(String(length)), rest]) };
}

/** The image with its manifest changed: the config's and layers' descriptors, their count, types, anything. */
export function withManifest(
  image: FixtureImage,
  change: (manifest: ManifestJson) => unknown,
  type?: string,
): FixtureImage {
  const manifest = JSON.parse(image.manifestJson.toString()) as ManifestJson;
  const manifestJson = text(JSON.stringify(change(manifest) ?? manifest));
  return { ...image, manifestJson, manifestDigest: sha256(manifestJson), manifestType: type ?? image.manifestType };
}
export interface ManifestJson {
  mediaType: string;
  config: { mediaType: string; size: number; digest: string };
  layers: { mediaType: string; size: number; digest: string }[];
}

/** The image with another configuration, right in every digest. */
export function withConfig(image: FixtureImage, configJson: Buffer): FixtureImage {
  return withManifest({ ...image, configJson, id: sha256(configJson) }, ({ config }) => {
    config.size = configJson.length;
    config.digest = sha256(configJson);
  });
}

/** What the docker CLI says of a failure. */
export function expectOneSentence({ code, stderr }: CommandResult, phrase: RegExp): void {
  expect(stderr.trim().split('\n')).toHaveLength(1);
  expect(stderr).toMatch(phrase);
  expect(stderr).not.toMatch(/\bat .*\.[jt]s:\d+|undefined|\[object|Unexpected token/);
  expect(code).toBe(1);
}

/** The file of that name is nowhere but inside unpacked layers. */
export function expectNothingOutside({ directory, engine: { dataRoot } }: TestEngine, name: string): void {
  const outside = ['', '/tmp', '/etc', directory, dataRoot, `${dataRoot}/image`];
  for (const folder of outside) expect(existsSync(`${folder}/${name}`)).toBe(false);
  const found = execFileSync('find', [dataRoot, '-name', name], { encoding: 'utf8' }).trim();
  for (const path of found.split('\n').filter(Boolean)) expect(path).toMatch(/\/layers\/[0-9a-f]{64}\/diff\//);
}
