import { closeSync, constants, openSync } from 'node:fs';
import { ProjectQuotas, hasCode } from '@flotilla/sys';

/** Gives all that is below a directory to a project: it takes as long as there are files. */
export type Adopt = (directory: string, id: number) => Promise<void>;

/**
 * Limits on what the files of volumes take, by project quotas: each such volume is a project, whose number the file system keeps at the volume's directory
 * and at all that is made in it. Numbers that anybody uses on this file system, other engines among them, are not taken.
 */
export class VolumeQuotas {
  readonly #quotas: ProjectQuotas;
  /** Anything in the file system. */
  readonly #root: string;
  readonly #rootProject: number;
  readonly #adopt: Adopt;
  #last: number;

  private constructor(quotas: ProjectQuotas, root: string, rootProject: number, adopt: Adopt) {
    this.#quotas = quotas;
    this.#adopt = adopt;
    this.#root = root;
    this.#rootProject = rootProject;
    this.#last = rootProject;
  }

  /** @returns nothing where the file system of `root` does not enforce project quotas */
  static open(root: string, adopt: Adopt, quotas = new ProjectQuotas()): VolumeQuotas | undefined {
    return withDirectory(root, (fd) => {
      try {
        return quotas.areEnforced(fd) ? new VolumeQuotas(quotas, root, quotas.projectOf(fd).id, adopt) : undefined;
      } catch (error) {
        if (hasCode(error, 'ENOTTY', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL')) return undefined;
        throw error;
      }
    });
  }

  /** Limit what `directory` and all below it take. Again with the same directory: the limit is set again, the project stays. */
  async limit(directory: string, bytes: bigint): Promise<void> {
    const own = this.#projectOf(directory);
    const id = own ?? this.#unusedProject();
    withDirectory(directory, (fd) => {
      // First: a crash in between leaves no limit that belongs to nobody.
      if (own === undefined) this.#quotas.setProject(fd, { id, isInherited: true });
      this.#quotas.setLimit(fd, id, bytes);
    });
    // What is made from now on inherits it; what was taken over does not have it yet.
    await this.#adopt(directory, id);
  }

  /** Before the files of `directory` are deleted: its project gets free. */
  release(directory: string): void {
    const id = this.#projectOf(directory);
    if (id !== undefined) withDirectory(this.#root, (fd) => this.#quotas.setLimit(fd, id, 0n));
  }

  #projectOf(directory: string): number | undefined {
    try {
      const { id, isInherited } = withDirectory(directory, (fd) => this.#quotas.projectOf(fd));
      return isInherited && id !== this.#rootProject ? id : undefined;
    } catch (error) {
      if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
      throw error;
    }
  }

  #unusedProject(): number {
    return withDirectory(this.#root, (fd) => {
      for (;;) {
        this.#last += 1;
        const { files, limitBytes } = this.#quotas.usage(fd, this.#last);
        if (files === 0n && limitBytes === 0n) return this.#last;
      }
    });
  }
}

function withDirectory<T>(path: string, work: (fd: number) => T): T {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    return work(fd);
  } finally {
    closeSync(fd);
  }
}
