import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { internal, messageOf } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import { findAppArmorParser, pathExists } from '@flotilla/sys';
import { defaultProfile, defaultProfileName, unconfined } from './default-profile.js';

const run = promisify(execFile);
/** The parser compiles for a second or so on a busy machine. */
const loadMs = 60_000;

/** AppArmor profiles of containers. On a machine without AppArmor nothing is asked for and nothing is refused, as with dockerd. */
export class AppArmor {
  readonly #root: string;
  readonly #parser: string | undefined;
  #loading: Promise<void> | undefined;

  /** @param root where the machine's file system is */
  constructor(root = '/') {
    this.#root = root;
    this.#parser = findAppArmorParser(root);
  }

  /**
   * The profile for a run of a container, loaded if it is the default one: others are the user's. Absent on a machine without AppArmor.
   *
   * @throws EngineError `internal` in dockerd's words when the default profile cannot be loaded
   */
  async profileFor(hostConfig: Pick<container.HostConfig, 'securityOpt' | 'privileged'>): Promise<string | undefined> {
    if (this.#parser === undefined) return undefined;
    const profile = askedProfile(hostConfig.securityOpt) || (hostConfig.privileged ? unconfined : defaultProfileName);
    if (profile === defaultProfileName) await this.ensureDefault();
    return profile;
  }

  /**
   * Load the default profile unless the kernel has it: updates of the distribution are known to drop it.
   *
   * @throws EngineError `internal` in dockerd's words
   */
  ensureDefault(): Promise<void> {
    const parser = this.#parser;
    if (parser === undefined) return Promise.resolve();
    this.#loading ??= this.#ensure(parser).finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #ensure(parser: string): Promise<void> {
    let loaded: string;
    try {
      loaded = await readFile(this.#path('sys/kernel/security/apparmor/profiles'), 'utf8');
    } catch (cause) {
      throw internal(`Could not check if ${defaultProfileName} AppArmor profile was loaded: ${messageOf(cause)}`, {
        cause,
      });
    }
    if (loaded.split('\n').some((line) => line.startsWith(`${defaultProfileName} `))) return;
    try {
      const text = defaultProfile({
        engineProfile: await this.#ownProfile(),
        hasTunables: await pathExists(this.#path('etc/apparmor.d/tunables/global')),
        hasBase: await pathExists(this.#path('etc/apparmor.d/abstractions/base')),
      });
      // No cache: the text is ours to change with every version.
      const loading = run(parser, ['--replace', '--skip-cache'], { timeout: loadMs });
      loading.child.stdin?.on('error', () => undefined).end(text);
      await loading;
    } catch (cause) {
      throw internal(
        `AppArmor enabled on system but the ${defaultProfileName} profile could not be loaded: ${messageOf(cause)}`,
        { cause },
      );
    }
  }

  async #ownProfile(): Promise<string> {
    const text = await readFile(this.#path('proc/self/attr/current'), 'latin1').catch(() => '');
    const [name = ''] = text.replaceAll('\0', '').trim().split(' ');
    return name === '' ? unconfined : name;
  }

  #path(path: string): string {
    return join(this.#root, path);
  }
}

/** What `--security-opt apparmor=` names; empty for none. */
export function askedProfile(securityOpt: readonly string[]): string {
  const named = securityOpt.flatMap((option) => /^apparmor[=:](.*)$/.exec(option)?.[1] ?? []);
  return named.at(-1) ?? '';
}
