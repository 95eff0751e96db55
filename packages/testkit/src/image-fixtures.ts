import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { debianMirror } from './debian-packages.js';

/** The parts of an OCI/Docker image configuration that tests set. */
export interface FixtureConfig {
  Env?: string[];
  Cmd?: string[];
  Entrypoint?: string[];
  WorkingDir?: string;
  User?: string;
  Volumes?: Record<string, object>;
  ExposedPorts?: Record<string, object>;
  Labels?: Record<string, string>;
  StopSignal?: string;
}

/** One image in memory: what a registry stores or an archive holds. */
export interface FixtureImage {
  /** `sha256:...` of `configJson`: the image id. */
  readonly id: string;
  readonly configJson: Buffer;
  readonly manifestJson: Buffer;
  readonly manifestDigest: string;
  readonly manifestType: string;
  readonly layers: readonly FixtureLayer[];
}

/** One layer, plain and compressed. */
export interface FixtureLayer {
  readonly diffId: string;
  readonly digest: string;
  readonly tar: Buffer;
  readonly blob: Buffer;
  readonly mediaType: string;
}

/** `sha256:<hex>` of bytes. */
export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar.gzip';
const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';

/** Layer from an uncompressed tar, compressed with gzip. */
export function gzipLayer(tar: Buffer, level = 1): FixtureLayer {
  const blob = gzipSync(tar, { level });
  return { diffId: sha256(tar), digest: sha256(blob), tar, blob, mediaType: DOCKER_LAYER };
}

/** Schema 2 image of some layers, lowest first. `created` is fixed so that ids are stable. */
export function makeImage(
  layers: readonly FixtureLayer[],
  config: FixtureConfig = {},
  architecture = 'amd64',
): FixtureImage {
  const created = '2024-01-02T03:04:05Z';
  const configJson = Buffer.from(
    JSON.stringify({
      architecture,
      os: 'linux',
      created,
      config,
      rootfs: { type: 'layers', diff_ids: layers.map((l) => l.diffId) },
      history: layers.map((_, i) => ({ created, created_by: `fixture layer ${i}` })),
    }),
  );
  const manifestJson = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: DOCKER_MANIFEST,
      config: { mediaType: DOCKER_CONFIG, size: configJson.length, digest: sha256(configJson) },
      layers: layers.map((l) => ({ mediaType: l.mediaType, size: l.blob.length, digest: l.digest })),
    }),
  );
  return {
    id: sha256(configJson),
    configJson,
    manifestJson,
    manifestDigest: sha256(manifestJson),
    manifestType: DOCKER_MANIFEST,
    layers,
  };
}

/** One entry of an index. */
export interface FixtureIndexEntry {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: Record<string, unknown>;
  readonly annotations?: Record<string, string>;
}

/** The entry of an image in an index; `platform` as `os/architecture[/variant]`. */
export function indexEntry(image: FixtureImage, platform: string): FixtureIndexEntry {
  const [os, architecture, variant] = platform.split('/');
  return {
    mediaType: image.manifestType,
    digest: image.manifestDigest,
    size: image.manifestJson.length,
    platform: { os, architecture, ...(variant === undefined ? {} : { variant }) },
  };
}

/** An OCI index, or another by its media type. */
export function makeIndex(
  manifests: readonly FixtureIndexEntry[],
  mediaType = 'application/vnd.oci.image.index.v1+json',
): { json: Buffer; digest: string; mediaType: string } {
  const json = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
  return { json, digest: sha256(json), mediaType };
}

/** Tar of a directory with numeric owners, sorted names and a fixed time. */
export function tarDirectory(directory: string): Buffer {
  return execFileSync(
    'tar',
    [
      '--sort=name',
      '--numeric-owner',
      '--xattrs',
      '--xattrs-include=*',
      '--format=posix',
      '-C',
      directory,
      '-cf',
      '-',
      '.',
    ],
    { maxBuffer: 2 ** 30, stdio: ['ignore', 'pipe', 'pipe'] },
  );
}

const APPLETS = (busybox: string) => execFileSync(busybox, ['--list'], { encoding: 'utf8' }).trim().split('\n');

/** Make a busybox root file system (Debian's busybox-static with links for its applets) in an empty directory. */
export function writeBusyboxRootfs(directory: string): void {
  for (const d of ['bin', 'etc', 'tmp', 'root', 'dev', 'proc', 'sys', 'var/www', 'home'])
    mkdirSync(join(directory, d), { recursive: true });
  copyFileSync('/bin/busybox', join(directory, 'bin/busybox'));
  for (const applet of APPLETS('/bin/busybox'))
    if (applet !== 'busybox') symlinkSync('busybox', join(directory, 'bin', applet));
  writeFileSync(
    join(directory, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\nweb:x:1000:1000:web:/home:/bin/sh\n',
  );
  writeFileSync(join(directory, 'etc/group'), 'root:x:0:\nnogroup:x:65534:\nweb:x:1000:\nstaff:x:50:web\n');
}

/** The busybox image of the tests: one layer, `Cmd: ["sh"]`. Made anew in `scratch` (removed afterwards). */
export function busyboxImage(scratch: string, config: FixtureConfig = {}): FixtureImage {
  const root = join(scratch, 'busybox-rootfs');
  mkdirSync(root, { recursive: true });
  writeBusyboxRootfs(root);
  execFileSync('find', [root, '-exec', 'touch', '-h', '-d', '2024-01-02T03:04:05Z', '{}', '+']);
  const image = makeImage([gzipLayer(tarDirectory(root))], {
    Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
    Cmd: ['sh'],
    ...config,
  });
  rmSync(root, { recursive: true });
  return image;
}

/** Tar of a minimal Debian made by debootstrap (about 10,000 entries), kept in `cacheDirectory` between runs. */
export function debianRootfsTar(cacheDirectory: string): Buffer {
  const cached = join(cacheDirectory, 'debian-rootfs.tar');
  if (!existsSync(cached)) {
    mkdirSync(cacheDirectory, { recursive: true });
    const root = join(cacheDirectory, `debootstrap-${process.pid}`);
    const [site, release] = debianMirror();
    execFileSync('debootstrap', ['--variant=minbase', release, root, site], { stdio: ['ignore', 'ignore', 'pipe'] });
    writeFileSync(`${cached}.${process.pid}`, tarDirectory(root));
    renameSync(`${cached}.${process.pid}`, cached);
    rmSync(root, { recursive: true });
  }
  return readFileSync(cached);
}

/** The Debian image: a base of three layers so that downloads and unpacking have something to overlap. */
export function debianImage(cacheDirectory: string): FixtureImage {
  const root = join(cacheDirectory, `debian-split-${process.pid}`);
  mkdirSync(root, { recursive: true });
  execFileSync('tar', ['-C', root, '--numeric-owner', '-xpf', '-'], { input: debianRootfsTar(cacheDirectory) });
  const layer = (paths: string[], exclude: string[]) =>
    gzipLayer(
      execFileSync(
        'tar',
        [
          '--sort=name',
          '--numeric-owner',
          '--format=posix',
          '-C',
          root,
          ...exclude.map((e) => `--exclude=${e}`),
          '-cf',
          '-',
          ...paths,
        ],
        { maxBuffer: 2 ** 30, stdio: ['ignore', 'pipe', 'pipe'] },
      ),
      6,
    );
  const image = makeImage(
    [
      layer(['.'], ['./usr/lib', './usr/share', './var']),
      layer(['./usr/lib'], []),
      layer(['./usr/share', './var'], []),
    ],
    {
      Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      Cmd: ['bash'],
    },
  );
  rmSync(root, { recursive: true });
  return image;
}

/** docker-archive tar (what `docker save` writes and `docker load` reads) of one image under some tags. */
export function dockerArchive(image: FixtureImage, tags: readonly string[]): Buffer {
  const files: [string, Buffer][] = [];
  const layerNames = image.layers.map((layer) => `${layer.diffId.slice(7)}/layer.tar`);
  image.layers.forEach((layer, i) => files.push([layerNames[i] ?? '', layer.tar]));
  const configName = `${image.id.slice(7)}.json`;
  files.push([configName, image.configJson]);
  files.push([
    'manifest.json',
    Buffer.from(JSON.stringify([{ Config: configName, RepoTags: tags, Layers: layerNames }])),
  ]);
  return plainTar(files);
}

/** OCI image layout tar of one image under a reference name. */
export function ociArchive(image: FixtureImage, name: string): Buffer {
  const blob = (bytes: Buffer): [string, Buffer] => [`blobs/sha256/${sha256(bytes).slice(7)}`, bytes];
  const index = {
    schemaVersion: 2,
    manifests: [
      {
        mediaType: image.manifestType,
        digest: image.manifestDigest,
        size: image.manifestJson.length,
        annotations: {
          'io.containerd.image.name': name,
          'org.opencontainers.image.ref.name': name.split(':')[1] ?? 'latest',
        },
      },
    ],
  };
  return plainTar([
    ['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ['index.json', Buffer.from(JSON.stringify(index))],
    blob(image.manifestJson),
    blob(image.configJson),
    ...image.layers.map((layer) => blob(layer.blob)),
  ]);
}

/** One tar entry for {@link plainTar}; hostile tests set what a normal packer never would. */
export interface RawTarEntry {
  name: string;
  type?: string;
  linkname?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  data?: Buffer;
}

/** ustar archive of files given as [name, content] or raw entries, with nothing checked. Names up to 100 bytes. */
export function plainTar(entries: readonly ([string, Buffer] | RawTarEntry)[]): Buffer {
  const parts: Buffer[] = [];
  for (const given of entries) {
    const e: RawTarEntry = Array.isArray(given) ? { name: given[0], data: given[1] } : given;
    const data = e.data ?? Buffer.alloc(0);
    const header = Buffer.alloc(512);
    const octal = (value: number, offset: number, length: number) =>
      header.write(`${value.toString(8).padStart(length - 1, '0')}\0`, offset, 'latin1');
    header.write(e.name, 0, 100, 'latin1');
    octal(e.mode ?? (e.type === '5' ? 0o755 : 0o644), 100, 8);
    octal(e.uid ?? 0, 108, 8);
    octal(e.gid ?? 0, 116, 8);
    octal(data.length, 124, 12);
    octal(1704164645, 136, 12);
    header.write(e.type ?? '0', 156, 'latin1');
    header.write(e.linkname ?? '', 157, 100, 'latin1');
    header.write('ustar\x0000', 257, 'latin1');
    header.fill(' ', 148, 156);
    let sum = 0;
    for (const byte of header) sum += byte;
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
    parts.push(header, data, Buffer.alloc((512 - (data.length % 512)) % 512));
  }
  parts.push(Buffer.alloc(1024));
  return Buffer.concat(parts);
}
