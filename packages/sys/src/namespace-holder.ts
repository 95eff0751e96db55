import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import type { IdMappings, IdRange } from './id-mappings.js';

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

/**
 * A process that does nothing but live in namespaces that were made for it, until it is disposed or this process ends.
 *
 * A thread of ours could make no user namespace: the kernel refuses programs with threads. The programs are util-linux's and `cat`.
 */
export class NamespaceHolder implements AsyncDisposable {
  readonly #child: Child;
  readonly #ended: Promise<unknown>;

  private constructor(child: Child) {
    this.#child = child;
    this.#ended = once(child, 'close');
    this.#ended.catch(() => undefined);
  }

  /** In a new user namespace with these ids and, on demand, a new network namespace that belongs to it. @throws Error with the reason */
  static async inNewUserNamespace(mappings: IdMappings, options: { network: boolean }): Promise<NamespaceHolder> {
    const holder = await NamespaceHolder.#start('unshare', [
      '--user',
      ...(options.network ? ['--net'] : []),
      '--',
      'cat',
    ]);
    try {
      writeFileSync(`/proc/${holder.#pid}/gid_map`, mapText(mappings.gids));
      writeFileSync(`/proc/${holder.#pid}/uid_map`, mapText(mappings.uids));
      return holder;
    } catch (cause) {
      await holder[Symbol.asyncDispose]();
      throw new Error(`the kernel refuses the mapping of ids: ${String(cause)}`, { cause });
    }
  }

  /** In a new network namespace that belongs to the user namespace at `path`. @throws Error with the reason */
  static inNewNetwork(path: string): Promise<NamespaceHolder> {
    return NamespaceHolder.#start('nsenter', [`--user=${path}`, '--', 'unshare', '--net', '--', 'cat']);
  }

  static async #start(program: string, args: string[]): Promise<NamespaceHolder> {
    const child: Child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    let complaint = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
    child.stdin.on('error', () => undefined); // it has ended: told below
    const holder = new NamespaceHolder(child);
    // What comes back has passed `cat`, so the namespaces exist.
    child.stdin.write('\n');
    const isReady = await Promise.race([once(child.stdout, 'data').then(() => true), holder.#ended.then(() => false)]);
    if (!isReady) throw new Error(complaint.trim() === '' ? `${program} ended` : complaint.trim());
    return holder;
  }

  get #pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Where the namespace is found as long as the holder lives. */
  path(kind: 'user' | 'net'): string {
    return `/proc/${this.#pid}/ns/${kind}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended.catch(() => undefined);
  }
}

function mapText(ranges: readonly IdRange[]): string {
  return ranges.map(({ containerId, hostId, size }) => `${containerId} ${hostId} ${size}\n`).join('');
}
