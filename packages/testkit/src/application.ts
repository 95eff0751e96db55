import { createHash } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  APPLICATION_BASE,
  APPLICATION_EXCLUDE,
  APPLICATION_IMAGES,
  APPLICATION_SUITE,
  APPLICATION_USERS,
  type LayerRecipe,
} from './application-images.js';
import { unpackDebianPackages } from './debian-packages.js';
import { makeImage, plainTar, tarDirectory, writeBusyboxRootfs, type FixtureImage } from './image-fixtures.js';
import { keepLayer, keptLayer } from './kept-layer.js';

/** An application for docker compose: nginx, a Node program, PostgreSQL and Redis, made of Debian packages. */
export interface Application {
  /** `compose.yaml` and the files that it names; nothing writes here. `WEB_PORT` is the port on the machine (8080). */
  readonly directory: string;
  /** For `docker load -i`: all of its images, with their common layer once. */
  readonly archive: string;
  /** The same images, for a registry; names as in compose.yaml, `repository:tag`. */
  readonly images: readonly { readonly name: string; readonly image: FixtureImage }[];
}

/** Make the images with packages of a Debian mirror, or take those that `cacheDirectory` has. */
export function makeApplication(cacheDirectory: string): Application {
  const directory = findApplication(dirname(fileURLToPath(import.meta.url)));
  const recipes = [APPLICATION_SUITE, APPLICATION_EXCLUDE, APPLICATION_USERS, APPLICATION_BASE, APPLICATION_IMAGES];
  const hash = createHash('sha256').update(JSON.stringify(recipes));
  for (const { files = {} } of APPLICATION_IMAGES)
    for (const name of Object.values(files)) hash.update(readFileSync(join(directory, name)));
  const kept = join(cacheDirectory, `application-${hash.digest('hex').slice(0, 8)}`);
  if (!existsSync(kept)) {
    mkdirSync(cacheDirectory, { recursive: true });
    const making = mkdtempSync(`${kept}.`);
    try {
      makeLayers(cacheDirectory, directory, making);
      writeFileSync(join(making, 'images.tar'), archiveOf(imagesOf(making)));
      // Another test file may have been quicker: both made the same.
      if (!existsSync(kept)) renameSync(making, kept);
    } finally {
      rmSync(making, { recursive: true, force: true });
    }
  }
  return { directory, archive: join(kept, 'images.tar'), images: imagesOf(kept) };
}

const layerName = (image: string): string => image.replaceAll(/\W+/g, '-');

const imagesOf = (kept: string): Application['images'] =>
  APPLICATION_IMAGES.map(({ name, config }) => ({
    name,
    image: makeImage([keptLayer(kept, 'base'), keptLayer(kept, layerName(name))], config),
  }));

function makeLayers(cacheDirectory: string, application: string, making: string): void {
  const root = join(making, 'root');
  const make = (name: string, recipe: LayerRecipe, prepare: () => void = () => undefined): void => {
    mkdirSync(root);
    prepare();
    const { packages, files = {}, directories = {} } = recipe;
    unpackDebianPackages(cacheDirectory, { suite: APPLICATION_SUITE, packages, exclude: APPLICATION_EXCLUDE }, root);
    for (const [path, source] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      copyFileSync(join(application, source), join(root, path));
    }
    for (const [path, owner] of Object.entries(directories)) {
      mkdirSync(join(root, path), { recursive: true });
      chmodSync(join(root, path), 0o700);
      chownSync(join(root, path), owner, owner);
    }
    keepLayer(making, name, tarDirectory(root));
    rmSync(root, { recursive: true });
  };
  make('base', APPLICATION_BASE, () => {
    writeBusyboxRootfs(root);
    chmodSync(join(root, 'tmp'), 0o1777);
    mkdirSync(join(root, 'run'));
    for (const [name, id] of Object.entries(APPLICATION_USERS)) {
      appendFileSync(join(root, 'etc/passwd'), `${name}:x:${id}:${id}:${name}:/:/bin/sh\n`);
      appendFileSync(join(root, 'etc/group'), `${name}:x:${id}:\n`);
    }
  });
  for (const recipe of APPLICATION_IMAGES) make(layerName(recipe.name), recipe);
}

/** docker-archive of the images; layers stay compressed. */
function archiveOf(images: Application['images']): Buffer {
  const entries = new Map<string, Buffer>();
  const manifest = images.map(({ name, image }) => {
    const Config = `${image.id.slice(7)}.json`;
    entries.set(Config, image.configJson);
    const Layers = image.layers.map((layer) => {
      const file = `${layer.diffId.slice(7)}/layer.tar`;
      if (!entries.has(file)) entries.set(file, layer.blob);
      return file;
    });
    return { Config, RepoTags: [name], Layers };
  });
  return plainTar([...entries, ['manifest.json', Buffer.from(JSON.stringify(manifest))]]);
}

/** The application's files in this checkout: this file may run as source, compiled, or inside a bundle of the bench. */
function findApplication(directory: string): string {
  const candidate = join(directory, 'packages/testkit/application');
  const parent = dirname(directory);
  return existsSync(candidate) || parent === directory ? candidate : findApplication(parent);
}
