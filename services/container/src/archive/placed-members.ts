import { invalidArgument } from '@flotilla/errors';
import { cleanName, type TarEntry, type TarSink } from '@flotilla/layer-tar';

/**
 * Puts the members of an archive below a directory of the present root, so that links on the way are followed in the
 * whole root, as dockerd does. The directory itself keeps its owner, mode and times.
 *
 * @throws EngineError `invalidArgument` for names that lead out of the directory.
 */
export class PlacedMembers implements TarSink {
  readonly #inner: TarSink;
  /** Without a leading slash; with a closing one unless it is the root. */
  readonly #prefix: string;
  readonly #directory: string;
  #isSkipped = false;

  /** `directory`: absolute, clean, latin1. */
  constructor(inner: TarSink, directory: string) {
    this.#inner = inner;
    this.#directory = directory;
    this.#prefix = directory === '/' ? '' : `${directory.slice(1)}/`;
  }

  entry(entry: TarEntry): void {
    const name = this.#place(entry.name, () => `${shown(entry.name)} is outside of ${shown(this.#directory)}`);
    this.#isSkipped = name === '';
    if (this.#isSkipped) {
      if (entry.type === 'directory') return;
      throw invalidArgument(`${shown(entry.name)} cannot take the place of ${shown(this.#directory)}`);
    }
    const linkname =
      entry.type === 'hardlink'
        ? this.#prefix +
          this.#place(entry.linkname, () => `invalid hardlink ${shown(entry.name)} -> ${shown(entry.linkname)}`)
        : entry.linkname;
    this.#inner.entry({ ...entry, name: this.#prefix + name, linkname });
  }

  data(bytes: Buffer, offset: number): void {
    this.#inner.data(bytes, offset);
  }

  endEntry(): void {
    this.#inner.endEntry();
  }

  /** An absolute name counts from the directory, as dockerd joins the two. */
  #place(name: string, complaint: () => string): string {
    let depth = 0;
    for (const part of name.split('/')) {
      if (part === '..') depth--;
      else if (part !== '' && part !== '.') depth++;
      if (depth < 0) throw invalidArgument(complaint());
    }
    return cleanName(name);
  }
}

const shown = (name: string): string => JSON.stringify(Buffer.from(name, 'latin1').toString());
