import { createHmac, randomBytes } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isEngineError } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { repositoryName } from '@flotilla/oci';
import type { Digest, Reference } from '@flotilla/oci';
import { Store, jsonCodec } from '@flotilla/store';
import type { Codec } from '@flotilla/store';
import { hasCode } from '@flotilla/sys';
import type { Credentials } from '../upstream/credentials.js';
import type { FetchedManifest } from '../upstream/manifests.js';
import { BoundedRecords } from './bounded-records.js';

/** What a tag stood for when the registry was last asked. */
export interface CachedTag {
  readonly digest: Digest;
  readonly atMs: number;
}

interface ManifestRecord {
  readonly mediaType: string;
  readonly content: Buffer;
}

interface Records {
  readonly store: Store;
  readonly manifests: BoundedRecords<ManifestRecord>;
  readonly tags: BoundedRecords<CachedTag>;
  /** Who was allowed what: keys only. */
  readonly grants: BoundedRecords<true>;
  readonly salt: Buffer;
}

const schemaVersion = 1;
const bounds = {
  manifests: { maxEntries: 10_000, maxBytes: 32 * 1024 * 1024 },
  tags: { maxEntries: 10_000, maxBytes: 4 * 1024 * 1024 },
  grants: { maxEntries: 50_000, maxBytes: Infinity },
};

/**
 * What registries said, durably: manifests by digest, tags, and whom they let read what.
 *
 * It is opened when it is first needed. It is a cache: a damaged one is thrown away, and a failure to write is logged
 * and costs nothing but a later request.
 */
export class CacheIndex implements AsyncDisposable {
  readonly #directory: string;
  readonly #log: Logger;
  #opened: Promise<Records> | undefined;

  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    this.#log = log;
  }

  async manifest(digest: string): Promise<FetchedManifest | undefined> {
    const { manifests } = await this.#records();
    const found = await manifests.get(digest);
    return found === undefined ? undefined : { ...found, digest: digest as Digest };
  }

  async tag(repository: Reference, tag: string): Promise<CachedTag | undefined> {
    const { tags } = await this.#records();
    return tags.get(tagKey(repository, tag));
  }

  /** The registry gave this manifest to who has these credentials; `target`: the tag or digest that was asked for. */
  async rememberManifest(
    repository: Reference,
    target: string,
    credentials: Credentials | undefined,
    { digest, mediaType, content }: FetchedManifest,
  ): Promise<void> {
    await this.#write(({ store, manifests, tags, grants, salt }) =>
      store.commit((batch) => {
        if (!manifests.has(digest)) manifests.put(batch, digest, { mediaType, content });
        if (target !== digest) tags.put(batch, tagKey(repository, target), { digest, atMs: Date.now() });
        grants.put(batch, grantKey(salt, repository, credentials, digest), true);
      }),
    );
  }

  /** The registry let who has these credentials read this blob or manifest. */
  async allow(repository: Reference, credentials: Credentials | undefined, digest: Digest): Promise<void> {
    await this.#write(async ({ store, grants, salt }) => {
      const key = grantKey(salt, repository, credentials, digest);
      if (!grants.has(key)) await store.commit((batch) => grants.put(batch, key, true));
    });
  }

  /** Whether the registry once let who has these credentials, or anybody, read it. */
  async isAllowed(repository: Reference, credentials: Credentials | undefined, digest: Digest): Promise<boolean> {
    try {
      const { grants, salt } = await this.#records();
      return [credentials, undefined].some((who) => grants.has(grantKey(salt, repository, who, digest)));
    } catch (err) {
      this.#log.warn({ err }, 'registry cache not read');
      return false;
    }
  }

  async #write(work: (records: Records) => Promise<unknown>): Promise<void> {
    try {
      await work(await this.#records());
    } catch (err) {
      this.#log.warn({ err }, 'registry cache not written');
    }
  }

  #records(): Promise<Records> {
    this.#opened ??= this.#open().catch((error: unknown) => {
      this.#opened = undefined;
      throw error;
    });
    return this.#opened;
  }

  async #open(): Promise<Records> {
    try {
      return await this.#openStore();
    } catch (err) {
      if (!isEngineError(err, 'dataLoss')) throw err;
      this.#log.warn({ err }, 'registry cache damaged, beginning a new one');
      await rm(join(this.#directory, 'db'), { recursive: true, force: true });
      return this.#openStore();
    }
  }

  async #openStore(): Promise<Records> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const salt = await readSalt(join(this.#directory, 'salt'));
    const store = await Store.open(join(this.#directory, 'db'), { service: 'registry-proxy', schemaVersion });
    try {
      return {
        store,
        salt,
        manifests: await BoundedRecords.open(store, 'manifests', manifestCodec, bounds.manifests, sizeOfManifest),
        tags: await BoundedRecords.open(store, 'tags', jsonCodec<CachedTag>(), bounds.tags, () => 256),
        grants: await BoundedRecords.open(store, 'grants', nothing, bounds.grants, () => 0),
      };
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const opened = await this.#opened?.catch(() => undefined);
    await opened?.store.close();
  }
}

const tagKey = (repository: Reference, tag: string): string => `${repositoryName(repository)}:${tag}`;

/** Tells nothing of the credentials without the salt, and little with it: the secret has to be guessed. */
function grantKey(salt: Buffer, repository: Reference, credentials: Credentials | undefined, digest: string): string {
  const { username = '', password = '', identityToken = '', registryToken = '' } = credentials ?? {};
  return createHmac('sha256', salt)
    .update(JSON.stringify([repositoryName(repository), username, password, identityToken, registryToken, digest]))
    .digest('hex');
}

const saltBytes = 32;

/** Made once; a file that was cut short counts as none. */
async function readSalt(path: string): Promise<Buffer> {
  try {
    const salt = await readFile(path);
    if (salt.length === saltBytes) return salt;
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error;
  }
  const salt = randomBytes(saltBytes);
  await writeFile(`${path}.new`, salt, { mode: 0o600, flush: true });
  await rename(`${path}.new`, path);
  return salt;
}

const sizeOfManifest = ({ content }: ManifestRecord): number => content.length;

/** The media type, a line end, the bytes. */
const manifestCodec: Codec<ManifestRecord> = {
  encode: ({ mediaType, content }) => Buffer.concat([Buffer.from(`${mediaType}\n`), content]),
  decode: (bytes) => {
    const buffer = Buffer.from(bytes);
    const end = buffer.indexOf('\n');
    return { mediaType: buffer.toString('utf8', 0, end), content: buffer.subarray(end + 1) };
  },
};

const nothing: Codec<true> = { encode: () => Buffer.alloc(0), decode: () => true };
