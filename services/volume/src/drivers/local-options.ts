import { invalidArgument } from '@flotilla/errors';
import {
  MS_BIND,
  MS_NOATIME,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_PRIVATE,
  MS_RDONLY,
  MS_REC,
  MS_RELATIME,
  MS_REMOUNT,
  MS_SHARED,
  MS_SLAVE,
  MS_STRICTATIME,
  MS_UNBINDABLE,
} from '@flotilla/sys';

/** What mount(2) is to be called with for a volume with options `type`, `device` and `o`. */
export interface LocalMount {
  device: string;
  fstype: string;
  flags: number;
  /** Propagation is set by a call of its own. */
  propagation: number;
  data: string;
}

// Only in mount(2), so not worth a place in sys.
const MS_SYNCHRONOUS = 0x10;
const MS_MANDLOCK = 0x40;
const MS_DIRSYNC = 0x80;
const MS_NODIRATIME = 0x800;

/** Options of mount(8) that are flags of mount(2): [flag, whether it is set or cleared]. */
const mountFlags = new Map<string, readonly [number, boolean]>([
  ['defaults', [0, true]],
  ['ro', [MS_RDONLY, true]],
  ['rw', [MS_RDONLY, false]],
  ['suid', [MS_NOSUID, false]],
  ['nosuid', [MS_NOSUID, true]],
  ['dev', [MS_NODEV, false]],
  ['nodev', [MS_NODEV, true]],
  ['exec', [MS_NOEXEC, false]],
  ['noexec', [MS_NOEXEC, true]],
  ['sync', [MS_SYNCHRONOUS, true]],
  ['async', [MS_SYNCHRONOUS, false]],
  ['dirsync', [MS_DIRSYNC, true]],
  ['remount', [MS_REMOUNT, true]],
  ['mand', [MS_MANDLOCK, true]],
  ['nomand', [MS_MANDLOCK, false]],
  ['atime', [MS_NOATIME, false]],
  ['noatime', [MS_NOATIME, true]],
  ['diratime', [MS_NODIRATIME, false]],
  ['nodiratime', [MS_NODIRATIME, true]],
  ['bind', [MS_BIND, true]],
  ['rbind', [MS_BIND | MS_REC, true]],
  ['relatime', [MS_RELATIME, true]],
  ['norelatime', [MS_RELATIME, false]],
  ['strictatime', [MS_STRICTATIME, true]],
  ['nostrictatime', [MS_STRICTATIME, false]],
]);

const propagationFlags = new Map<string, number>([
  ['unbindable', MS_UNBINDABLE],
  ['runbindable', MS_UNBINDABLE | MS_REC],
  ['private', MS_PRIVATE],
  ['rprivate', MS_PRIVATE | MS_REC],
  ['shared', MS_SHARED],
  ['rshared', MS_SHARED | MS_REC],
  ['slave', MS_SLAVE],
  ['rslave', MS_SLAVE | MS_REC],
]);

const known = new Set(['type', 'o', 'device', 'size']);
const required: readonly (readonly [option: string, needs: readonly string[]])[] = [
  ['device', ['type']],
  ['type', ['device']],
  ['o', ['device', 'type']],
];

/**
 * Whether the local driver takes these options, `canLimit` being whether it can enforce a size. Rules and phrases: moby/moby daemon/volume/local/local_unix.go, validateOpts.
 *
 * @throws EngineError `invalidArgument`
 */
export function checkLocalOptions(options: Readonly<Record<string, string>>, canLimit: boolean): void {
  for (const option of Object.keys(options)) {
    if (!known.has(option)) throw invalidArgument(`invalid option: ${JSON.stringify(option)}`);
  }
  for (const [option, needs] of required) {
    if (options[option] === undefined) continue;
    for (const needed of needs) {
      if (options[needed] === undefined) throw invalidArgument(`missing required option: ${JSON.stringify(needed)}`);
    }
  }
  for (const [option, value] of Object.entries(options)) {
    if (value.includes('\0'))
      throw invalidArgument(`invalid option: ${JSON.stringify(option)} contains a NUL character`);
  }
  if (options['type'] !== undefined && options['device'] === '')
    throw invalidArgument('missing device in volume options');
  const mount = localMount(options);
  if (mount !== undefined && (mount.flags & MS_BIND) !== 0 && !mount.device.startsWith('/')) {
    // It would mean something in whatever directory the service runs.
    throw invalidArgument(`invalid option: "device" must be an absolute path to be bound: '${mount.device}'`);
  }
  if (mount !== undefined) checkServer(mount);
  if (sizeLimit(options) === 0) return;
  // Nothing is promised that is not enforced.
  if (!canLimit) throw invalidArgument('quota size requested but no quota support');
  if (mount !== undefined) {
    throw invalidArgument(
      'invalid option: "size" limits what lies in the data root: with "type" and "device" it has no effect',
    );
  }
}

/** What the kernel says no more of than `invalid argument`: it gets no help from mount.nfs(8). */
function checkServer({ fstype, device, data }: LocalMount): void {
  if (fstype !== 'nfs' && fstype !== 'nfs4') return;
  if (!device.includes(':')) {
    throw invalidArgument(`invalid option: "device" of type ${fstype} must be "[server]:/path": '${device}'`);
  }
  const servers = data.split(',').filter((option) => option.startsWith('addr='));
  if (servers.length !== 1 || servers[0] === 'addr=') {
    throw invalidArgument(`invalid option: "o" of type ${fstype} must name the server, as "addr=<server>"`);
  }
}

/** Bytes that a volume may take; 0: any number. @throws EngineError `invalidArgument` */
export function sizeLimit({ size }: Readonly<Record<string, string>>): number {
  return size === undefined ? 0 : parseBytes(size);
}

/** The mount that a volume with these options needs; undefined for a plain directory. */
export function localMount(options: Readonly<Record<string, string>>): LocalMount | undefined {
  const { type, device, o = '' } = options;
  if (type === undefined || device === undefined) return undefined;
  let flags = 0;
  let propagation = 0;
  const data: string[] = [];
  for (const option of o.split(',').filter(Boolean)) {
    const flag = mountFlags.get(option);
    const propagationFlag = propagationFlags.get(option);
    if (flag !== undefined) flags = flag[1] ? flags | flag[0] : flags & ~flag[0];
    else if (propagationFlag !== undefined) propagation = propagationFlag;
    else data.push(option);
  }
  return { device, fstype: type, flags, propagation, data: data.join(',') };
}

const units: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 1024,
  m: 1024 ** 2,
  g: 1024 ** 3,
  t: 1024 ** 4,
  p: 1024 ** 5,
};

// As go-units RAMInBytes: "10m", "1.5 GiB", "512".
function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?$/i.exec(text) ?? /^(\d+(?:\.\d+)?) ?(b)$/i.exec(text);
  const unit = units[match?.[2]?.toLowerCase() ?? ''];
  if (match?.[1] === undefined || unit === undefined) throw invalidArgument(`invalid size: '${text}'`);
  return Math.floor(Number(match[1]) * unit);
}
