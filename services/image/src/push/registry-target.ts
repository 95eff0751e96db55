import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { copyFile, link, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { dataLoss, isEngineError, unavailable } from '@flotilla/errors';
import { repositoryName } from '@flotilla/oci';
import type { Descriptor, Reference } from '@flotilla/oci';
import type { registry } from '@flotilla/proto';
import { hasCode } from '@flotilla/sys';
import type { ContentStore } from '../content/content-store.js';
import type { Credentials, FetchProgress, RegistryRpc } from '../pull/registry-source.js';
import type { PlannedManifest } from './push-plan.js';

const manifestDeadlineMs = 120_000;
/** How long a registry-proxy that restarts is waited for. */
const proxyOutageMs = 30_000;
const linkPrefix = 'push-';

/** Blobs and manifests, taken to a registry by registry-proxy. It reads blobs through links in the exchange directory. */
export class RegistryTarget {
  readonly #rpc: RegistryRpc;
  readonly #content: ContentStore;
  readonly #exchangeDir: string;

  private constructor(rpc: RegistryRpc, content: ContentStore, exchangeDir: string) {
    this.#rpc = rpc;
    this.#content = content;
    this.#exchangeDir = exchangeDir;
  }

  /** Removes the links that this service laid before it died. */
  static async open(rpc: RegistryRpc, content: ContentStore, exchangeDir: string): Promise<RegistryTarget> {
    await mkdir(exchangeDir, { recursive: true, mode: 0o700 });
    for (const name of await readdir(exchangeDir)) {
      if (name.startsWith(linkPrefix)) await rm(join(exchangeDir, name), { force: true });
    }
    return new RegistryTarget(rpc, content, exchangeDir);
  }

  /**
   * Have the blob in the repository. A registry-proxy that dies is waited for and asked again: what it had finished is
   * not sent again.
   *
   * @throws EngineError as the registry refused, in Docker's words; `dataLoss` when the blob is gone from the disk.
   */
  async pushBlob(
    repository: Reference,
    { digest, size }: Descriptor,
    mountFrom: readonly string[],
    credentials: Credentials,
    report: (progress: FetchProgress) => void,
    signal: AbortSignal,
  ): Promise<registry.PushedBlob> {
    const path = join(this.#exchangeDir, `${linkPrefix}${randomUUID()}`);
    let outageEnds: number | undefined;
    try {
      await this.#lay(digest, path);
      for (;;) {
        try {
          const request = {
            repository: repositoryName(repository),
            digest,
            sizeBytes: BigInt(size),
            credentials,
            path,
            mountFrom: [...mountFrom],
          };
          for await (const { event } of this.#rpc.pushBlob(request, { signal })) {
            outageEnds = undefined;
            if (event?.$case === 'done') return event.value;
            if (event === undefined) continue;
            const { currentBytes, totalBytes, status } = event.value;
            report({ current: Number(currentBytes), total: Number(totalBytes), status });
          }
          throw unavailable('registry-proxy ended a push early');
        } catch (error) {
          signal.throwIfAborted();
          // Only registry-proxy's own death is `unavailable`: a registry's failure comes as another kind.
          if (!isEngineError(error, 'unavailable')) throw error;
          outageEnds ??= Date.now() + proxyOutageMs;
          if (Date.now() > outageEnds) throw error;
        }
      }
    } finally {
      await rm(path, { force: true });
    }
  }

  /** @throws EngineError as the registry refused, in Docker's words. */
  async pushManifest(
    repository: Reference,
    reference: string,
    { mediaType, content }: PlannedManifest,
    credentials: Credentials,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#rpc.pushManifest(
      { repository: repositoryName(repository), reference, mediaType, content, credentials },
      { deadlineMs: manifestDeadlineMs, retryUnavailableMs: proxyOutageMs, signal },
    );
  }

  async #lay(digest: Descriptor['digest'], path: string): Promise<void> {
    const from = this.#content.path(digest);
    try {
      await link(from, path);
    } catch (error) {
      if (hasCode(error, 'EXDEV')) await copyFile(from, path, constants.COPYFILE_EXCL);
      else if (hasCode(error, 'ENOENT')) {
        throw dataLoss(`blob ${digest} is missing from the image store`, { cause: error });
      } else throw error;
    }
  }
}
