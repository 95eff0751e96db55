import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { debianRootfsTar, makeImage, sha256, type FixtureImage, type FixtureLayer } from '@flotilla/testkit';

const MIB = 1024 * 1024;
/** Sizes of the layered image: a large base and what is laid over it, as real images are. */
const LAYER_MIB = [110, 60, 40, 30, 25, 20, 10, 5];
const LARGE_LAYER_MIB = 500;
const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar.gzip';

/** Images of the transfer measurements. */
export interface Corpus {
  /** 300 MiB in 8 layers. */
  readonly layered: FixtureImage;
  /** One layer of 500 MiB. */
  readonly large: FixtureImage;
}

/**
 * Make the images of a Debian's own files, so that they compress and unpack as images do; kept in `cacheDirectory`.
 * What its tree of about 200 MiB leaves open is filled with files of about 20 MiB made of the same content.
 */
export function transferCorpus(cacheDirectory: string): Corpus {
  const directory = join(cacheDirectory, 'bench-layers');
  if (!existsSync(directory)) {
    const making = `${directory}.${process.pid}`;
    mkdirSync(making);
    try {
      makeLayers(cacheDirectory, making);
      renameSync(making, directory);
    } finally {
      rmSync(making, { recursive: true, force: true });
    }
  }
  return {
    layered: makeImage(LAYER_MIB.map((_, at) => layerFrom(directory, `layered-${at}`))),
    large: makeImage([layerFrom(directory, 'large')]),
  };
}

/** Bytes are read when they are asked for: all of them are more than should be held. */
function layerFrom(directory: string, name: string): FixtureLayer {
  const digests = JSON.parse(readFileSync(join(directory, `${name}.json`), 'utf8')) as {
    diffId: string;
    digest: string;
  };
  return {
    ...digests,
    mediaType: DOCKER_LAYER,
    get tar() {
      return readFileSync(join(directory, `${name}.tar`));
    },
    get blob() {
      return readFileSync(join(directory, `${name}.tar.gz`));
    },
  };
}

function makeLayers(cacheDirectory: string, directory: string): void {
  const root = join(directory, 'rootfs');
  mkdirSync(root);
  execFileSync('tar', ['-C', root, '--numeric-owner', '-xpf', '-'], { input: debianRootfsTar(cacheDirectory) });
  const files = filesBelow(root, '.');
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const largeFiles = new LargeFiles(root, files);
  let at = 0;
  LAYER_MIB.forEach((mib, layer) => {
    const share = (total * mib) / LAYER_MIB.reduce((sum, each) => sum + each, 0);
    const names: string[] = [];
    let size = 0;
    for (
      let file = files[at];
      file !== undefined && (size < share || layer === LAYER_MIB.length - 1);
      file = files[++at]
    ) {
      names.push(file.name);
      size += file.size;
    }
    names.push(...largeFiles.make(`layer${layer}`, mib * MIB - size));
    pack(directory, `layered-${layer}`, names);
  });
  const names = files.map(({ name }) => name);
  pack(directory, 'large', [...names, ...largeFiles.make('large', LARGE_LAYER_MIB * MIB - total)]);
  rmSync(root, { recursive: true });
}

/** Regular files and links with their sizes, in the order of the tree. */
function filesBelow(root: string, path: string): { name: string; size: number }[] {
  return readdirSync(join(root, path), { withFileTypes: true }).flatMap((entry) => {
    const name = `${path}/${entry.name}`;
    if (entry.isDirectory()) return filesBelow(root, name);
    if (!entry.isFile() && !entry.isSymbolicLink()) return [];
    return [{ name, size: lstatSync(join(root, name)).size }];
  });
}

/** Files of about 20 MiB, each of other content than the one before. */
class LargeFiles {
  readonly #root: string;
  readonly #content: Buffer;
  #count = 0;

  constructor(root: string, files: readonly { name: string; size: number }[]) {
    this.#root = root;
    const parts = files.filter(({ size }) => size > 20_000).map(({ name }) => readFileSync(join(root, name)));
    this.#content = Buffer.concat(parts);
  }

  make(directory: string, bytes: number): string[] {
    const names: string[] = [];
    mkdirSync(join(this.#root, 'opt', directory), { recursive: true });
    for (let left = bytes; left > 0;) {
      const size = Math.min(left, 20 * MIB);
      const from = (++this.#count * 7_777_777) % (this.#content.length - 20 * MIB);
      const name = `./opt/${directory}/part-${names.length}`;
      writeFileSync(join(this.#root, name), this.#content.subarray(from, from + size));
      names.push(name);
      left -= size;
    }
    return names;
  }
}

function pack(directory: string, name: string, names: readonly string[]): void {
  const [list, tar] = [join(directory, `${name}.list`), join(directory, `${name}.tar`)];
  writeFileSync(list, names.join('\n'));
  execFileSync('tar', ['-C', join(directory, 'rootfs'), '--numeric-owner', '--format=posix', '-cf', tar, '-T', list]);
  execFileSync('pigz', ['-6', '-k', '-n', tar]);
  const digests = { diffId: sha256(readFileSync(tar)), digest: sha256(readFileSync(`${tar}.gz`)) };
  writeFileSync(join(directory, `${name}.json`), JSON.stringify(digests));
  rmSync(list);
}
