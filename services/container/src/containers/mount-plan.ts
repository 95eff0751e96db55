import { posix } from 'node:path';
import { invalidArgument } from '@flotilla/errors';
import type { container } from '@flotilla/proto';

interface PlannedBase {
  /** Clean absolute path in the container. */
  destination: string;
  readOnly: boolean;
  /** Options as given, shown by inspect. */
  mode: string;
}

/** A host path shown in the container. */
export interface PlannedBind extends PlannedBase {
  type: 'bind';
  source: string;
  propagation: string;
  /** Make the source directory at start when it is missing (`-v`), instead of refusing. */
  createSource: boolean;
  recursive: boolean;
  /** How deep `readOnly` goes; absent: as deep as the kernel can. */
  readOnlyDepth?: 'top' | 'all';
}

/** A volume; without a name an anonymous one is made for this container and destination. */
export interface PlannedVolume extends PlannedBase {
  type: 'volume';
  name: string;
  /** Not named by the user: it goes with the last such container that is removed with its volumes. */
  isAnonymous?: true;
  /** Id of the container that asked for it first, when it comes by `--volumes-from`: what is copied into it is that container's. */
  inheritedFrom?: string;
  driver: string;
  driverOptions: Record<string, string>;
  labels: Record<string, string>;
  propagation: string;
  /** Copy what the image has at the destination into the volume while it is empty. */
  copy: boolean;
  subpath: string;
}

export interface PlannedTmpfs extends PlannedBase {
  type: 'tmpfs';
  /** Words for mount(2). */
  options: string[];
  /** By inspect, among `Mounts`: not those of `HostConfig.Tmpfs`. */
  isShown: boolean;
}

/** What an image holds, read-only. */
export interface PlannedImage extends PlannedBase {
  type: 'image';
  /** As given. */
  image: string;
  /** Directory or file of the image; empty: all of it. */
  subpath: string;
  /** What the name meant at create, and the layers, topmost first; absent until then. */
  leased?: { id: string; lower: string[] };
}

/** One mount that a container asks for, checked, in the order in which dockerd makes them. */
export type PlannedMount = PlannedBind | PlannedVolume | PlannedTmpfs | PlannedImage;

const propagations = ['shared', 'slave', 'private', 'rshared', 'rslave', 'rprivate'];
const consistencies = ['consistent', 'cached', 'delegated', 'default'];

/**
 * All mounts of a container: those of other containers (`--volumes-from`, already resolved), binds, `Mounts`, tmpfs, then anonymous volumes
 * for `Config.Volumes` whose destination nothing else takes.
 *
 * @throws EngineError `invalidArgument` in dockerd's words.
 */
export function planMounts(
  hostConfig: Pick<container.HostConfig, 'binds' | 'mounts' | 'tmpfs' | 'volumeDriver'>,
  volumes: readonly string[],
  inherited: readonly PlannedMount[],
): PlannedMount[] {
  const taken = new Set<string>();
  const own: PlannedMount[] = [];
  const add = (mount: PlannedMount): void => {
    if (taken.has(mount.destination)) throw invalidArgument(`Duplicate mount point: ${mount.destination}`);
    taken.add(mount.destination);
    own.push(mount);
  };
  for (const bind of hostConfig.binds) add(parseBind(bind, hostConfig.volumeDriver));
  for (const mount of hostConfig.mounts) add(parseMountRequest(mount));
  for (const [path, options] of Object.entries(hostConfig.tmpfs)) {
    add({
      type: 'tmpfs',
      destination: parseDestination(path, `tmpfs ${path}`),
      readOnly: false,
      mode: options,
      options: splitOptions(options),
      isShown: false,
    });
  }
  const plan = [...inherited.filter((mount) => !taken.has(mount.destination)), ...own];
  for (const mount of inherited) taken.add(mount.destination);
  for (const path of volumes) {
    const destination = parseDestination(path, `volume ${path}`);
    if (taken.has(destination)) continue;
    taken.add(destination);
    plan.push(anonymousVolume(destination, hostConfig.volumeDriver));
  }
  return plan;
}

/** How the image service is asked for an image that is mounted: by id, once that is known. */
export const leasedName = ({ image, leased }: PlannedImage): string => leased?.id ?? image;

/** The mounts that `--volumes-from from[:ro|rw]` takes over: binds, volumes and images, by name. */
export function inheritMounts(from: string, mounts: readonly PlannedMount[], mode: string): PlannedMount[] {
  if (!['', 'ro', 'rw', 'z', 'Z'].includes(mode)) throw invalidArgument(`invalid mode: ${mode}`);
  return mounts
    .filter((mount) => mount.type !== 'tmpfs')
    .map((mount) => {
      const own = { ...mount, mode: '', readOnly: mode === 'ro' || mount.readOnly };
      return own.type === 'volume' ? { ...own, inheritedFrom: own.inheritedFrom ?? from } : own;
    });
}

function anonymousVolume(destination: string, driver: string): PlannedVolume {
  return {
    type: 'volume',
    name: '',
    isAnonymous: true,
    driver,
    driverOptions: {},
    labels: {},
    destination,
    readOnly: false,
    mode: '',
    propagation: '',
    copy: true,
    subpath: '',
  };
}

/** `source:destination[:mode]`, or a destination alone for an anonymous volume. */
function parseBind(raw: string, volumeDriver: string): PlannedMount {
  const refuse = (detail?: string): Error =>
    invalidArgument(`invalid volume specification: '${raw}'${detail === undefined ? '' : `: ${detail}`}`);
  const parts = raw.split(':');
  if (raw === '' || parts.length > 3 || parts.some((part) => part === '')) throw refuse();
  const [first = '', second, mode = ''] = parts;
  if (second === undefined) {
    return anonymousVolume(
      checkDestination(first, (text) => refuse(`invalid mount config for type "volume": ${text}`)),
      volumeDriver,
    );
  }
  if (parts.length === 3 && !isMode(mode)) throw invalidArgument(`invalid mode: ${mode}`);
  const type = first.startsWith('/') ? 'bind' : 'volume';
  const destination = checkDestination(second, (text) => refuse(`invalid mount config for type "${type}": ${text}`));
  const words = mode === '' ? [] : mode.split(',');
  const readOnly = words.includes('ro');
  const propagation = words.find((word) => propagations.includes(word)) ?? '';
  if (type === 'bind') {
    if (words.includes('nocopy')) throw invalidArgument(`invalid mode: ${mode}`);
    const source = posix.normalize(first);
    return {
      type,
      source: source.length > 1 ? source.replace(/\/$/, '') : source,
      destination,
      readOnly,
      mode,
      propagation: propagation === '' ? 'rprivate' : propagation,
      createSource: true,
      recursive: true,
    };
  }
  if (propagation !== '')
    throw refuse('invalid mount config for type "volume": field BindOptions must not be specified');
  return {
    type,
    name: first,
    driver: volumeDriver,
    driverOptions: {},
    labels: {},
    destination,
    readOnly,
    mode: mode === '' ? 'z' : mode,
    propagation: '',
    copy: !words.includes('nocopy'),
    subpath: '',
  };
}

function isMode(mode: string): boolean {
  const words = mode.split(',');
  const counts = { access: 0, label: 0, propagation: 0, copy: 0, consistency: 0 };
  for (const word of words) {
    if (word === 'rw' || word === 'ro') counts.access++;
    else if (word === 'z' || word === 'Z') counts.label++;
    else if (propagations.includes(word)) counts.propagation++;
    else if (word === 'nocopy') counts.copy++;
    else if (consistencies.includes(word)) counts.consistency++;
    else return false;
  }
  return Object.values(counts).every((count) => count <= 1);
}

function parseMountRequest(mount: container.MountRequest): PlannedMount {
  const refuse = (text: string): Error => invalidArgument(`invalid mount config for type "${mount.type}": ${text}`);
  if (!['bind', 'volume', 'tmpfs', 'image'].includes(mount.type)) {
    if (['npipe', 'cluster'].includes(mount.type)) throw refuse(`mount type ${mount.type} is not supported`);
    throw invalidArgument(
      mount.type === ''
        ? 'invalid mount config: mount type unknown: ""'
        : refuse(`mount type unknown: "${mount.type}"`).message,
    );
  }
  if (mount.target === '') throw refuse('field Target must not be empty');
  const destination = checkDestination(mount.target, refuse);
  const conflictsWith = (option: string): Error => refuse(`field ${option} must not be specified`);
  switch (mount.type) {
    case 'bind': {
      if (mount.source === '') throw refuse('field Source must not be empty');
      if (mount.volumeOptions !== undefined) throw conflictsWith('VolumeOptions');
      if (mount.imageOptions !== undefined) throw conflictsWith('ImageOptions');
      if (mount.tmpfsOptions !== undefined) throw conflictsWith('TmpfsOptions');
      if (!mount.source.startsWith('/'))
        throw refuse(`invalid mount path: '${mount.source}' mount path must be absolute`);
      const propagation = mount.bindOptions?.propagation ?? '';
      if (propagation !== '' && !propagations.includes(propagation))
        throw refuse(`invalid propagation mode: ${propagation}`);
      const readOnlyDepth = readOnlyDepthOf(mount);
      return {
        type: 'bind',
        ...(readOnlyDepth === undefined ? {} : { readOnlyDepth }),
        source: posix.normalize(mount.source),
        destination,
        readOnly: mount.readOnly,
        mode: '',
        propagation: propagation === '' ? 'rprivate' : propagation,
        createSource: mount.bindOptions?.createMountpoint ?? false,
        recursive: !(mount.bindOptions?.nonRecursive ?? false),
      };
    }
    case 'tmpfs': {
      if (mount.source !== '') throw conflictsWith('Source');
      if (mount.bindOptions !== undefined) throw conflictsWith('BindOptions');
      if (mount.volumeOptions !== undefined) throw conflictsWith('VolumeOptions');
      if (mount.imageOptions !== undefined) throw conflictsWith('ImageOptions');
      const options: string[] = mount.readOnly ? ['ro'] : [];
      const size = mount.tmpfsOptions?.sizeBytes ?? 0n;
      if (size < 0n) throw refuse('invalid tmpfs size');
      if (size > 0n) options.push(`size=${size}`);
      const mode = mount.tmpfsOptions?.mode ?? 0;
      if (mode > 0) options.push(`mode=${mode.toString(8)}`);
      for (const { values } of mount.tmpfsOptions?.options ?? []) options.push(values.join('='));
      return { type: 'tmpfs', destination, readOnly: mount.readOnly, mode: '', options, isShown: true };
    }
    case 'image': {
      if (mount.bindOptions !== undefined) throw conflictsWith('BindOptions');
      if (mount.volumeOptions !== undefined) throw conflictsWith('VolumeOptions');
      if (mount.tmpfsOptions !== undefined) throw conflictsWith('TmpfsOptions');
      if (mount.source === '') throw refuse('field Source must not be empty');
      const subpath = mount.imageOptions?.subpath ?? '';
      checkSubpath(subpath, refuse);
      return { type: 'image', image: mount.source, subpath, destination, readOnly: true, mode: '' };
    }
    default: {
      if (mount.bindOptions !== undefined) throw conflictsWith('BindOptions');
      if (mount.imageOptions !== undefined) throw conflictsWith('ImageOptions');
      if (mount.tmpfsOptions !== undefined) throw conflictsWith('TmpfsOptions');
      if (mount.source === '' && mount.readOnly)
        throw refuse('must not set ReadOnly mode when using anonymous volumes');
      const options = mount.volumeOptions;
      const subpath = options?.subpath ?? '';
      checkSubpath(subpath, refuse);
      return {
        type: 'volume',
        name: mount.source,
        ...(mount.source === '' ? { isAnonymous: true } : {}),
        driver: options?.driverName ?? '',
        driverOptions: options?.driverOptions ?? {},
        labels: options?.labels ?? {},
        destination,
        readOnly: mount.readOnly,
        mode: 'z',
        propagation: '',
        copy: !(options?.noCopy ?? false),
        subpath,
      };
    }
  }
}

/** Of an image too dockerd says "volume". */
function checkSubpath(subpath: string, refuse: (text: string) => Error): void {
  if (subpath.startsWith('/') || subpath.split('/').includes('..')) {
    throw refuse('subpath must be a relative path within the volume');
  }
}

function readOnlyDepthOf({ readOnly, bindOptions }: container.MountRequest): PlannedBind['readOnlyDepth'] {
  const conflicting = (what: string): Error => invalidArgument(`mount options conflict: ${what}`);
  if (bindOptions?.readOnlyNonRecursive === true) {
    if (!readOnly) throw conflicting('!ReadOnly && BindOptions.ReadOnlyNonRecursive');
    if (bindOptions.readOnlyForceRecursive) {
      throw conflicting('BindOptions.ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive');
    }
    return 'top';
  }
  if (bindOptions?.readOnlyForceRecursive !== true) return undefined;
  if (!readOnly) throw conflicting('!ReadOnly && BindOptions.ReadOnlyForceRecursive');
  if (bindOptions.nonRecursive) throw conflicting('BindOptions.NonRecursive && BindOptions.ReadOnlyForceRecursive');
  if (!['', 'rprivate'].includes(bindOptions.propagation)) {
    throw conflicting(`BindOptions.Propagation=${bindOptions.propagation} && BindOptions.ReadOnlyForceRecursive`);
  }
  return 'all';
}

function parseDestination(path: string, what: string): string {
  return checkDestination(path, (text) => invalidArgument(`invalid mount config for ${what}: ${text}`));
}

function checkDestination(path: string, refuse: (text: string) => Error): string {
  if (!path.startsWith('/')) throw refuse(`invalid mount path: '${path}' mount path must be absolute`);
  if (path.includes('\0')) throw refuse(`invalid mount path: '${path}' holds a zero byte`);
  const clean = posix.normalize(path).replace(/(.)\/$/, '$1');
  if (clean === '/') throw refuse("invalid specification: destination can't be '/'");
  return clean;
}

function splitOptions(options: string): string[] {
  return options.split(',').filter((word) => word !== '');
}
