import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { gzipLayer, type FixtureLayer } from './image-fixtures.js';

/** Compress a layer and keep it in a directory as `NAME.tar.gz`, its digests in `NAME.json`. */
export function keepLayer(directory: string, name: string, tar: Buffer): FixtureLayer {
  const layer = gzipLayer(tar);
  const { diffId, digest, mediaType } = layer;
  writeFileSync(join(directory, `${name}.tar.gz`), layer.blob);
  writeFileSync(join(directory, `${name}.json`), JSON.stringify({ diffId, digest, mediaType }));
  return layer;
}

/** A layer that {@link keepLayer} wrote. Bytes are read when they are asked for. */
export function keptLayer(directory: string, name: string): FixtureLayer {
  const blob = () => readFileSync(join(directory, `${name}.tar.gz`));
  return {
    ...(JSON.parse(readFileSync(join(directory, `${name}.json`), 'utf8')) as Omit<FixtureLayer, 'tar' | 'blob'>),
    get tar() {
      return gunzipSync(blob());
    },
    get blob() {
      return blob();
    },
  };
}
