import { closeSync, openSync } from 'node:fs';
import { internal, messageOf } from '@flotilla/errors';
import { type IdMappings, mappedRoot, NamespaceHolder } from '@flotilla/sys';
import type { IdMap } from './id-map.js';

/**
 * The user namespaces by which files are shown, one for each mapping that some container has. Nothing ever runs in them: containers have user
 * namespaces of their own.
 */
export class IdMaps implements AsyncDisposable {
  readonly #made = new Map<string, Promise<IdMap>>();

  /** Stays open until disposal. @throws EngineError `internal` with the kernel's reason. */
  of(mappings: IdMappings): Promise<IdMap> {
    const key = JSON.stringify(mappings);
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const made = make(mappings);
    this.#made.set(key, made);
    made.catch(() => this.#made.delete(key));
    return made;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const made of this.#made.values()) {
      const idMap = await made.catch(() => undefined);
      if (idMap !== undefined) closeSync(idMap.fd);
    }
    this.#made.clear();
  }
}

async function make(mappings: IdMappings): Promise<IdMap> {
  const root = mappedRoot(mappings);
  if (root === undefined) throw internal('the mapping of ids has no root');
  try {
    await using holder = await NamespaceHolder.inNewUserNamespace(mappings, { network: false });
    return { fd: openSync(holder.path('user'), 'r'), mappings, root };
  } catch (cause) {
    throw internal(`user namespaces cannot be made: ${messageOf(cause)}`, { cause });
  }
}
