import { execFile } from 'node:child_process';
import { readFile, readdir, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readMounts } from '@flotilla/sys';
import { waitFor } from './wait-for.js';

const run = promisify(execFile);

/** Which part of the machine a test answers for. On a machine that runs other things too, name as much as possible. */
export interface LeakScope {
  /** Directories (data root, exec root, temporary): processes, mounts and unix sockets count if they are under one of them. Absent: all count. */
  roots?: readonly string[];
  /** Names of links, tables, cgroups and named network namespaces that count. Absent: all. */
  names?: RegExp;
  /** Named network namespace to look into, instead of the test's own, for links, tables, listening ports and translated flows. */
  netns?: string;
  /** Whose mounts count: those of a process in a mount namespace of its own, while it lives. Absent: the test's. */
  mountsOf?: () => number;
  /** Where cgroups are looked for, below each hierarchy's root. Absent: everywhere. */
  cgroupParent?: string;
}

const kinds = ['processes', 'mounts', 'cgroups', 'links', 'rules', 'namespaces', 'sockets', 'flows'] as const;
type Kind = (typeof kinds)[number];

/** What the kernel holds at one moment, as texts. */
export interface KernelState {
  readonly scope: LeakScope;
  readonly entries: Readonly<Record<Kind, ReadonlySet<string>>>;
}

/** Take stock before a test; `expectNoLeaks` compares with it. */
export async function snapshotKernelState(scope: LeakScope = {}): Promise<KernelState> {
  const readers: Record<Kind, (scope: LeakScope) => Promise<string[]>> = {
    processes: readProcesses,
    mounts: readMountTargets,
    cgroups: readCgroups,
    links: readLinks,
    rules: readRules,
    namespaces: readNamespaces,
    sockets: readSockets,
    flows: readFlows,
  };
  const read = async (kind: Kind) => [kind, new Set(numberRepeated(await readers[kind](scope)))] as const;
  const entries = Object.fromEntries(await Promise.all(kinds.map(read))) as Record<Kind, Set<string>>;
  return { scope, entries };
}

/**
 * Throws an error that lists what is there now and was not at the time of `before`. Things that are on their way out get `timeoutMs` to go.
 * What has vanished since is no leak.
 */
export async function expectNoLeaks(before: KernelState, timeoutMs = 20_000): Promise<void> {
  let leaks: string[] = [];
  try {
    await waitFor(
      async () => {
        const now = await snapshotKernelState(before.scope);
        leaks = kinds.flatMap((kind) =>
          [...now.entries[kind]]
            .filter((entry) => !before.entries[kind].has(entry))
            .map((entry) => `${kind}: ${entry}`),
        );
        return leaks.length === 0;
      },
      { timeoutMs, what: 'everything to be cleaned up', intervalMs: 50 },
    );
  } catch (error) {
    throw new Error(`left behind:\n  ${leaks.join('\n  ')}`, { cause: error });
  }
}

/** Two mounts on one directory are two: the second gets a number. */
function numberRepeated(texts: readonly string[]): string[] {
  const counts = new Map<string, number>();
  return texts.map((text) => {
    const count = (counts.get(text) ?? 0) + 1;
    counts.set(text, count);
    return count === 1 ? text : `${text} (${count})`;
  });
}

const isUnder = (path: string, { roots }: LeakScope) =>
  roots === undefined || roots.some((root) => path === root || path.startsWith(`${root}/`));
const isNamed = (name: string, { names }: LeakScope) => names === undefined || names.test(name);

async function processIds(): Promise<string[]> {
  return (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
}

/** By command, without the pid: a process of the engine that was started anew is the one that was there before. */
async function readProcesses(scope: LeakScope): Promise<string[]> {
  return (await processesInScope(scope)).map(({ command }) => command);
}

async function processesInScope(scope: LeakScope): Promise<{ readonly pid: string; readonly command: string }[]> {
  const described = await Promise.all(
    (await processIds()).map(async (pid) => {
      const [commandLine, directory] = await Promise.all([
        readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => ''),
        readlink(`/proc/${pid}/cwd`).catch(() => ''),
      ]);
      const words = commandLine.split('\0').filter(Boolean);
      // Kernel threads and zombies have no command line. The tools that this check runs are not leaks.
      if (words.length === 0 || Number(pid) === process.pid) return undefined;
      const mentions = (root: string) => words.some((word) => word.includes(root)) || directory.startsWith(root);
      const counts = scope.roots === undefined ? !isTool(words) : scope.roots.some(mentions);
      return counts ? { pid, command: words.join(' ').slice(0, 200) } : undefined;
    }),
  );
  return described.filter((it) => it !== undefined);
}

const isTool = ([command = '', first = '']: readonly string[]) =>
  /(^|\/)(ip|nft)$/.test(command) || (command.endsWith('nsenter') && first.startsWith('--net='));

function readMountTargets(scope: LeakScope): Promise<string[]> {
  const mounts = readMounts(scope.mountsOf?.()).filter(({ target }) => isUnder(target, scope));
  return Promise.resolve(mounts.map(({ target, fstype }) => `${target} (${fstype})`));
}

async function readCgroups(scope: LeakScope): Promise<string[]> {
  const found: string[] = [];
  const walk = async (path: string): Promise<void> => {
    const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isDirectory()) continue;
      const child = join(path, entry.name);
      if (isNamed(entry.name, scope)) found.push(child);
      await walk(child);
    }
  };
  const root = '/sys/fs/cgroup';
  const { cgroupParent } = scope;
  if (cgroupParent === undefined) await walk(root);
  // In the unified hierarchy, or in that of each controller.
  else
    for (const path of [root, ...(await readdir(root)).map((name) => join(root, name))])
      await walk(join(path, cgroupParent));
  return found;
}

/** Output of a command in the scope's network namespace; nothing if the command is missing or may not be run. */
async function runInNetwork({ netns }: LeakScope, command: string, args: readonly string[]): Promise<string> {
  const [file, words] =
    netns === undefined ? [command, args] : ['nsenter', [`--net=/run/netns/${netns}`, '--', command, ...args]];
  try {
    return (await run(file, words, { maxBuffer: 64 << 20 })).stdout;
  } catch {
    return '';
  }
}

async function readLinks(scope: LeakScope): Promise<string[]> {
  const text = await runInNetwork(scope, 'ip', ['-j', 'link', 'show']);
  const links = (parseJson(text) ?? []) as { ifname?: string }[];
  return links.map(({ ifname = '' }) => ifname).filter((name) => isNamed(name, scope));
}

type RuleEntry = Record<string, { family?: string; table?: string; name?: string; chain?: string; handle?: number }>;

async function readRules(scope: LeakScope): Promise<string[]> {
  const text = await runInNetwork(scope, 'nft', ['-j', 'list', 'ruleset']);
  const { nftables = [] } = (parseJson(text) ?? {}) as { nftables?: RuleEntry[] };
  return nftables.flatMap((entry) =>
    Object.entries(entry).flatMap(([kind, value]) => {
      if (kind === 'metainfo' || !isNamed(value.table ?? value.name ?? '', scope)) return [];
      // A handle is new with every making of the same rule; counters run.
      const { handle: _handle, ...rest } = value;
      return [`${kind} ${JSON.stringify(rest).replace(/"(packets|bytes|expires)":\d+/g, '"$1":0')}`];
    }),
  );
}

async function readNamespaces(scope: LeakScope): Promise<string[]> {
  const found = new Set<string>();
  // A test in a named namespace is one of several: unless it names what counts, the others' are none of its business.
  const named =
    scope.netns === undefined || scope.names !== undefined ? await readdir('/run/netns').catch(() => []) : [];
  for (const name of named) if (isNamed(name, scope)) found.add(`netns ${name}`);
  // Held by a process in scope; what is held by a mount is among the mounts.
  const holders = (await processesInScope(scope)).map(({ pid }) => pid);
  const own = new Set(await namespacesOf('self'));
  for (const pid of holders) {
    for (const namespace of await namespacesOf(pid)) if (!own.has(namespace)) found.add(namespace);
  }
  return [...found];
}

async function namespacesOf(pid: string): Promise<string[]> {
  const links = ['net', 'mnt', 'pid', 'ipc', 'uts', 'cgroup', 'user'].map((kind) =>
    readlink(`/proc/${pid}/ns/${kind}`).catch(() => ''),
  );
  return (await Promise.all(links)).filter(Boolean);
}

/** Flags and type in /proc/net/unix: linux/net.h and net.h. */
const acceptsConnections = '00010000';
const datagram = '0002';

async function readSockets(scope: LeakScope): Promise<string[]> {
  const unix = (await runInNetwork(scope, 'cat', ['/proc/net/unix'])).split('\n').slice(1);
  const fields = unix.map((line) => line.trim().split(/\s+/));
  // A connection shows the path too, for as long as it is kept open. Datagram sockets never listen.
  const bound = fields.filter(([, , , flags, type]) => flags === acceptsConnections || type === datagram);
  const paths = bound.map((words) => words.slice(7).join(' ')).filter(Boolean);
  const listening = paths.filter((path) => isUnder(path, scope) && !path.startsWith('@')).map((path) => `unix ${path}`);
  // Ports have no names: they count where the network is the test's own, or where everything counts.
  const countsPorts = scope.netns !== undefined || (scope.roots === undefined && scope.names === undefined);
  return countsPorts ? [...new Set([...listening, ...(await readPorts(scope))])] : [...new Set(listening)];
}

/**
 * UDP flows that go elsewhere than they were sent: what published ports leave in the connection tracker, where it would lead
 * to a container that is gone. A TCP client ends its own.
 */
async function readFlows(scope: LeakScope): Promise<string[]> {
  if (scope.netns === undefined) return []; // they have neither names nor paths
  const lines = (await runInNetwork(scope, 'cat', ['/proc/net/nf_conntrack'])).split('\n');
  return lines.flatMap((line) => {
    const [original, reply] = [...line.matchAll(/src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g)];
    if (!/ udp /.test(line) || original === undefined || reply === undefined || reply[1] === original[2]) return [];
    const [, source = '', destination = '', sourcePort = '', port = ''] = original;
    return [`udp ${source}:${sourcePort} to ${destination}:${port}, which is ${reply[1]}:${reply[3]}`];
  });
}

async function readPorts(scope: LeakScope): Promise<string[]> {
  const tables = ['tcp', 'tcp6', 'udp', 'udp6'].map(async (protocol) => {
    const lines = (await runInNetwork(scope, 'cat', [`/proc/net/${protocol}`])).split('\n').slice(1);
    const fields = lines.map((line) => line.trim().split(/\s+/));
    // State 0A is TCP's LISTEN, 07 is what a bound UDP socket shows.
    const open = fields.filter(([, , , state]) => state === (protocol.startsWith('tcp') ? '0A' : '07'));
    return open.map(([, local = '']) => `${protocol} ${local}`);
  });
  return (await Promise.all(tables)).flat();
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
