import { invalidArgument } from '@flotilla/errors';
import type { HostFacts } from './host-facts.js';
import type { OciMount } from './oci-spec.js';
import type { SpecInput, SpecMount } from './spec-input.js';

export const initDestination = '/sbin/docker-init';

type BindMount = Extract<SpecMount, { type: 'bind' }>;

const defaultMounts: readonly OciMount[] = [
  { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
  {
    destination: '/dev',
    type: 'tmpfs',
    source: 'tmpfs',
    options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
  },
  {
    destination: '/dev/pts',
    type: 'devpts',
    source: 'devpts',
    options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
  },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
  { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro', 'nosuid', 'noexec', 'nodev'] },
  { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
  { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777'] },
];

/** Stay writable in a read-only container: their content is the kernel's, or the container's own. */
const alwaysWritable = new Set(['/proc', '/dev/pts', '/dev/shm', '/dev/mqueue', '/dev']);

/**
 * The mount table: Docker's defaults less what the user replaces, then the user's mounts, outer before inner.
 *
 * @returns also how the root itself must propagate for the user's mounts to do so
 * @throws EngineError `invalidArgument` for a propagation that the source's mount cannot give
 */
export function specMounts(input: SpecInput, host: HostFacts): { mounts: OciMount[]; rootfsPropagation?: string } {
  const user = [...input.mounts];
  if (input.shm.kind === 'bind' && user.every(({ destination }) => destination !== '/dev/shm')) {
    const { source } = input.shm;
    user.push({
      type: 'bind',
      source,
      destination: '/dev/shm',
      readOnly: false,
      recursive: true,
      propagation: 'rprivate',
    });
  }
  // The host's queues can be mounted only by the host's root.
  const showsHostQueues = input.ipc.kind === 'host' && input.userNamespace !== undefined;
  const taken = new Set(user.map(({ destination }) => destination));
  const isReplaced = ({ destination }: OciMount) =>
    taken.has(destination) ||
    (taken.has('/dev') && destination.startsWith('/dev/')) ||
    (destination === '/dev/shm' && input.shm.kind === 'none') ||
    (destination === '/dev/mqueue' && showsHostQueues && !host.hasQueues);
  const mounts = defaultMounts
    .filter((mount) => !isReplaced(mount))
    .map((mount) => ({ ...mount, options: [...mount.options] }));
  for (const mount of mounts) {
    if (mount.destination === '/dev/shm' && input.shm.kind === 'tmpfs') {
      mount.options.push(`size=${input.shm.sizeBytes}`);
    }
    if (mount.destination === '/dev/mqueue' && showsHostQueues) {
      Object.assign(mount, {
        type: 'bind',
        source: mount.destination,
        options: ['rbind', 'nosuid', 'noexec', 'nodev'],
      });
    }
    // In a user namespace the kernel refuses to make it read-only afterwards; it is the host root's anyway. As dockerd.
    const isOpenCgroup = mount.type === 'cgroup' && input.userNamespace !== undefined;
    if ((input.privileged && (mount.destination === '/sys' || mount.type === 'cgroup')) || isOpenCgroup) {
      mount.options = mount.options.filter((option) => option !== 'ro').concat('rw');
    } else if (input.readonlyRootfs && !alwaysWritable.has(mount.destination) && !mount.options.includes('ro')) {
      mount.options.push('ro');
    }
  }
  let rootfsPropagation: string | undefined;
  for (const mount of outerFirst(user)) {
    if (mount.type === 'tmpfs') {
      mounts.push({
        destination: mount.destination,
        type: 'tmpfs',
        source: 'tmpfs',
        options: mergeTmpfsOptions(['noexec', 'nosuid', 'nodev', 'rprivate', ...mount.options]),
      });
      continue;
    }
    rootfsPropagation = propagationOfRoot(rootfsPropagation, mount, host);
    const { destination, source } = mount;
    mounts.push({ destination, type: 'bind', source, options: bindOptions(mount, host) });
  }
  if (input.initPath !== undefined && input.pid.kind === 'private') {
    mounts.push({ destination: initDestination, type: 'bind', source: input.initPath, options: ['bind', 'ro'] });
  }
  return { mounts, ...(rootfsPropagation === undefined ? {} : { rootfsPropagation }) };
}

function outerFirst(mounts: SpecMount[]): SpecMount[] {
  const depth = ({ destination }: SpecMount) => destination.split('/').filter((part) => part !== '').length;
  return mounts.sort((left, right) => depth(left) - depth(right));
}

/** mount_setattr(2) makes a whole tree read-only since Linux 5.12; before that only the top could be. */
function bindOptions(mount: BindMount, { kernel }: HostFacts): string[] {
  const options = [mount.recursive ? 'rbind' : 'bind'];
  if (mount.readOnly) {
    const canRecurse = kernel.major > 5 || (kernel.major === 5 && kernel.minor >= 12);
    if (mount.readOnlyDepth === 'all' && !canRecurse) {
      throw invalidArgument('recursively read-only mounts are not supported: the kernel must be 5.12 or later');
    }
    const recursive = mount.recursive && mount.readOnlyDepth !== 'top' && canRecurse;
    options.push(recursive ? 'rro' : 'ro');
  }
  if (mount.propagation !== '') options.push(mount.propagation);
  return options;
}

function propagationOfRoot(before: string | undefined, mount: BindMount, host: HostFacts): string | undefined {
  const { propagation, source } = mount;
  if (propagation === 'shared' || propagation === 'rshared') {
    if (host.propagationAt(source) !== 'shared') {
      throw invalidArgument(`path ${source} is mounted on a mount that is not shared: it is not a shared mount`);
    }
    return 'shared';
  }
  if (propagation === 'slave' || propagation === 'rslave') {
    if (host.propagationAt(source) === 'private') {
      throw invalidArgument(
        `path ${source} is mounted on a mount that is not shared: it is not a shared or slave mount`,
      );
    }
    return before ?? 'rslave';
  }
  return before;
}

/** Words that stand for flags; those with the same value exclude each other. */
const tmpfsFlags: Record<string, string> = {
  ro: 'access',
  rw: 'access',
  suid: 'suid',
  nosuid: 'suid',
  dev: 'dev',
  nodev: 'dev',
  exec: 'exec',
  noexec: 'exec',
  sync: 'sync',
  async: 'sync',
  dirsync: 'dirsync',
  mand: 'mand',
  nomand: 'mand',
  atime: 'atime',
  noatime: 'atime',
  diratime: 'diratime',
  nodiratime: 'diratime',
  relatime: 'relatime',
  norelatime: 'relatime',
  strictatime: 'strictatime',
  nostrictatime: 'strictatime',
  private: 'propagation',
  rprivate: 'propagation',
  shared: 'propagation',
  rshared: 'propagation',
  slave: 'propagation',
  rslave: 'propagation',
  unbindable: 'propagation',
  runbindable: 'propagation',
};
const tmpfsValues = new Set(['size', 'mode', 'uid', 'gid', 'nr_inodes', 'nr_blocks', 'mpol']);

/**
 * Tmpfs options without contradictions: of each kind the last one stays.
 *
 * @throws EngineError `invalidArgument` for unknown ones
 */
export function mergeTmpfsOptions(options: readonly string[]): string[] {
  const merged = new Map<string, string>();
  for (const option of options) {
    if (option === 'defaults') continue;
    const equals = option.indexOf('=');
    const key = equals < 0 ? tmpfsFlags[option] : option.slice(0, equals);
    if (key === undefined || (equals >= 0 && !tmpfsValues.has(key))) {
      throw invalidArgument(`invalid tmpfs option ["${option.replace('=', '" "')}"]`);
    }
    merged.delete(key);
    merged.set(key, option);
  }
  return [...merged.values()];
}
