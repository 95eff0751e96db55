import { execFileSync, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { type Ext4Disk, mountExt4Disk, unmountBelow, waitFor } from '@flotilla/testkit';
import { killProcess } from './kill-process.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

/** A machine that is itself a container may have none. */
export const hasLoopDevices = spawnSync('losetup', ['-f']).status === 0;

/**
 * What the disk does with files that were not synced. Neither writes anything by itself while a test lasts.
 *
 * With `data=writeback` and blocks that are given at once, sizes are in the journal as soon as anybody syncs anything, and the bytes are not.
 */
export const lossyDisks = [
  { loss: 'files that were not synced are empty', mountOptions: ['commit=600', 'noauto_da_alloc'] },
  {
    loss: 'files that were not synced hold zeros',
    mountOptions: ['commit=600', 'noauto_da_alloc', 'nodelalloc', 'data=writeback'],
  },
] as const;

/** An engine on a machine whose power can fail. */
export interface FragileEngine extends AsyncDisposable {
  readonly t: TestEngine;
  /** The power fails now. Nothing that is under way is waited for. */
  cutPower(): void;
  /** After `cutPower`: the machine boots, and the engine starts. @param beforeStart is run when the disk is there again */
  boot(beforeStart?: () => void): Promise<void>;
}

/** Start an engine whose data root is a disk of its own. */
export async function startFragileEngine(mountOptions: readonly string[]): Promise<FragileEngine> {
  let disk: Ext4Disk | undefined;
  const bootId = 'boot-id';
  const t = await startTestEngine({
    bootIdFile: bootId,
    prepare: (directory) => {
      writeFileSync(`${directory}/${bootId}`, `${randomUUID()}\n`);
      disk = mountExt4Disk(`${directory}/disk`, `${directory}/engine/data`, { mebibytes: 400, mountOptions });
    },
  });
  return {
    t,
    cutPower: () => disk?.cutPower(),
    async boot(beforeStart = () => undefined) {
      await endProcesses(t);
      await unmountBelow(t.engine.execRoot);
      rmSync(t.engine.execRoot, { recursive: true, force: true });
      rmSync(t.engine.socket, { force: true });
      emptyNetwork(t);
      removeCgroups(t.namespace.name);
      disk?.mountAgain();
      writeFileSync(`${t.directory}/${bootId}`, `${randomUUID()}\n`);
      beforeStart();
      await t.engine.start();
    },
    [Symbol.asyncDispose]: () => t[Symbol.asyncDispose](),
  };
}

/** The engine's processes, its shims and everything in its containers. */
async function endProcesses(t: TestEngine): Promise<void> {
  const isOurs = (pid: string): boolean => {
    const commandLine = readIfThere(`/proc/${pid}/cmdline`);
    if (commandLine === '' || Number(pid) === process.pid) return false; // a zombie has none
    const cgroup = readIfThere(`/proc/${pid}/cgroup`);
    return commandLine.includes(`${t.directory}/engine/`) || cgroup.includes(`/${t.namespace.name}/`);
  };
  await waitFor(
    () => {
      thaw(t.namespace.name);
      const left = readdirSync('/proc').filter((entry) => /^\d+$/.test(entry) && isOurs(entry));
      for (const pid of left) killProcess(Number(pid));
      return left.length === 0;
    },
    { what: 'the end of every process' },
  );
}

/** Frozen processes do not even die (cgroup v1). */
function thaw(parent: string): void {
  const freezer = `/sys/fs/cgroup/freezer/${parent}`;
  if (!existsSync(freezer)) return;
  for (const name of readdirSync(freezer, { recursive: true, encoding: 'utf8' })) {
    if (name.endsWith('/freezer.state')) writeFileSync(`${freezer}/${name}`, 'THAWED');
  }
}

/** What lives in the kernel is gone; loopback and the registry's socket stay. */
function emptyNetwork({ namespace }: TestEngine): void {
  namespace.run('nft', ['flush', 'ruleset']);
  for (const name of linkNames(namespace)) {
    // The other end of a pair may have gone with the first.
    if (name !== 'lo' && linkNames(namespace).includes(name)) namespace.run('ip', ['link', 'delete', name]);
  }
}

function linkNames(namespace: TestEngine['namespace']): string[] {
  const links = JSON.parse(namespace.run('ip', ['-j', 'link', 'show'])) as { ifname: string }[];
  return links.map(({ ifname }) => ifname);
}

function removeCgroups(parent: string): void {
  const roots = ['/sys/fs/cgroup', ...readdirSync('/sys/fs/cgroup').map((name) => `/sys/fs/cgroup/${name}`)];
  for (const path of roots.map((root) => `${root}/${parent}`)) {
    if (existsSync(path)) execFileSync('find', [path, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']);
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
