import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** The process that has a store directory open: enough to recognise it after its number was given to another. */
export interface StoreOwner {
  pid: number;
  /** Field 22 of /proc/<pid>/stat: clock ticks after boot. */
  startTime: string;
  bootId: string;
}

const ownerPath = (dir: string) => join(dir, 'OWNER');

async function readStartTime(pid: number): Promise<string | undefined> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
    // The command name (field 2) may hold spaces and brackets: count from the last bracket.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

export async function readBootId(): Promise<string> {
  try {
    return (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim();
  } catch {
    return '';
  }
}

/** Note this process in the directory. Called with LevelDB's lock held. */
export async function recordStoreOwner(dir: string): Promise<void> {
  const owner: StoreOwner = {
    pid: process.pid,
    startTime: (await readStartTime(process.pid)) ?? '',
    bootId: await readBootId(),
  };
  const temporary = `${ownerPath(dir)}.new`;
  await writeFile(temporary, JSON.stringify(owner), { mode: 0o600 });
  await rename(temporary, ownerPath(dir));
}

export async function forgetStoreOwner(dir: string): Promise<void> {
  await rm(ownerPath(dir), { force: true });
}

/**
 * The living process that opened the store at `dir`, or undefined when there is none (never opened, closed, or dead; a zombie counts as dead).
 * The launcher uses it to wait for, and in the end kill, the hung process of an engine that went before.
 */
export async function readStoreOwner(dir: string): Promise<StoreOwner | undefined> {
  let owner: Partial<StoreOwner>;
  try {
    owner = JSON.parse(await readFile(ownerPath(dir), 'utf8')) as Partial<StoreOwner>;
  } catch {
    return undefined;
  }
  const { pid, startTime, bootId } = owner;
  if (typeof pid !== 'number' || typeof startTime !== 'string' || typeof bootId !== 'string') return undefined;
  if (bootId !== (await readBootId()) || startTime !== (await readStartTime(pid))) return undefined;
  return { pid, startTime, bootId };
}
