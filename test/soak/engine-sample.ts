import { execFileSync } from 'node:child_process';
import { existsSync, lstatSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TestEngine } from '../e2e/test-engine.js';

/** What one process of the engine has. */
export interface ProcessSample {
  readonly pid: number;
  /** Its share of memory, in KiB. */
  readonly pssKib: number;
  readonly descriptors: number;
  readonly threads: number;
  /** Of its LevelDB; 0 without one. The reserve for full disks does not count. */
  readonly storeKib: number;
}

/** What an engine has at one moment. */
export interface EngineSample {
  readonly containers: number;
  readonly processes: ReadonlyMap<string, ProcessSample>;
  /** Counts of what lives in the kernel and in directories. */
  readonly objects: Readonly<Record<string, number>>;
}

export async function sampleEngine(t: TestEngine, containers: number): Promise<EngineSample> {
  const { dataRoot, execRoot, launcherPid } = t.engine;
  const services = await t.engine.services();
  const pids = [{ service: 'launcher', pid: launcherPid }, ...services];
  const processes = new Map(pids.map(({ service, pid }) => [service, sampleProcess(pid, join(dataRoot, service))]));
  const container = processes.get('container');
  const objects = {
    mounts: countMounts(container?.pid ?? 0, t.directory),
    cgroups: countCgroups(t.namespace.name),
    namespaces: entriesOf(join(execRoot, 'netns')),
    bundles: entriesOf(join(execRoot, 'containers')),
    shimSockets: entriesOf(join(execRoot, 's')),
    links: t.namespace.run('ip', ['-o', 'link', 'show']).split('\n').length - 1,
    rules: t.namespace.run('nft', ['list', 'ruleset']).split('\n').length - 1,
    containerFiles: entriesOf(join(dataRoot, 'container/containers')),
    containerLayers: entriesOf(join(dataRoot, 'image/containers')),
    volumes: entriesOf(join(dataRoot, 'volumes')),
  };
  return { containers, processes, objects };
}

function sampleProcess(pid: number, directory: string): ProcessSample {
  const smaps = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return {
    pid,
    pssKib: Number(/^Pss:\s+(\d+)/m.exec(smaps)?.[1]),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    threads: Number(/^Threads:\s+(\d+)/m.exec(status)?.[1]),
    storeKib: Math.round(bytesIn(join(directory, 'db')) / 1024),
  };
}

function bytesIn(directory: string): number {
  if (!existsSync(directory)) return 0;
  const sizes = readdirSync(directory).map((name) => {
    if (name === 'RESERVE') return 0;
    // LevelDB takes away what it has compacted meanwhile.
    return lstatSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0;
  });
  return sizes.reduce((sum, size) => sum + size, 0);
}

function entriesOf(directory: string): number {
  return existsSync(directory) ? readdirSync(directory).filter((name) => !name.startsWith('.trash-')).length : 0;
}

function countCgroups(parent: string): number {
  const roots = ['/sys/fs/cgroup', ...readdirSync('/sys/fs/cgroup').map((name) => `/sys/fs/cgroup/${name}`)];
  const found = roots.map((root) => `${root}/${parent}`).filter((path) => existsSync(path));
  const lines = found.map((path) => execFileSync('find', [path, '-type', 'd'], { encoding: 'utf8' }).split('\n'));
  return lines.reduce((sum, { length }) => sum + length - 1, 0);
}

function countMounts(pid: number, below: string): number {
  const lines = readFileSync(`/proc/${pid}/mountinfo`, 'utf8').split('\n');
  return lines.filter((line) => line.includes(` ${below}/`)).length;
}
