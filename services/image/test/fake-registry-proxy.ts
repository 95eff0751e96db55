import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { notFound } from '@flotilla/errors';
import { silentLogger } from '@flotilla/log';
import { registry } from '@flotilla/proto';
import { serve, serverStream, serviceEntry, unary } from '@flotilla/rpc';
import { sha256 } from '@flotilla/testkit';
import type { FixtureImage } from '@flotilla/testkit';

/** What stands behind the fake: every registry at once, in memory. Repositories with their registry, as `host/name`. */
export class FakeRegistryProxy {
  /** By `<repository> <digest>`. */
  readonly blobs = new Map<string, Buffer>();
  /** By `<repository> <tag or digest>`. */
  readonly manifests = new Map<string, { readonly mediaType: string; readonly content: Buffer }>();
  /** What was asked for, e.g. `manifest host/name:tag`, `sent host/name sha256:...`, in order of their ends. */
  readonly done: string[] = [];
  readonly requests: registry.PushBlobRequest[] = [];
  /** Blobs that are under way, now and at most. */
  readonly running = { now: 0, most: 0 };
  /** Runs before a blob is taken; what it throws is the answer. */
  beforeBlob: (request: registry.PushBlobRequest, signal: AbortSignal) => Promise<void> = () => Promise.resolve();
  beforeManifest: (request: registry.PushManifestRequest) => Promise<void> = () => Promise.resolve();

  /** A whole image, to be pulled. */
  hold(repository: string, tag: string, image: FixtureImage): void {
    for (const { digest, blob } of image.layers) this.blobs.set(`${repository} ${digest}`, blob);
    this.blobs.set(`${repository} ${image.id}`, image.configJson);
    const manifest = { mediaType: image.manifestType, content: image.manifestJson };
    for (const target of [tag, image.manifestDigest]) this.manifests.set(`${repository} ${target}`, manifest);
  }

  async serve(root: string, socket: string): Promise<AsyncDisposable> {
    return serve({
      listen: { kind: 'unix', path: socket },
      log: silentLogger(),
      service: 'registry-proxy',
      version: '0.0.0',
      engineId: 'test',
      services: [
        serviceEntry(registry.RegistryServiceService, {
          resolveManifest: unary(({ repository, reference }: registry.ResolveManifestRequest) => {
            const found = this.manifests.get(`${repository} ${reference}`);
            if (found === undefined) throw notFound(`manifest for ${repository}:${reference} not found`);
            return Promise.resolve({ ...found, digest: sha256(found.content), warnings: [] });
          }),
          fetchBlob: serverStream((request: registry.FetchBlobRequest) => this.#fetch(root, request)),
          forgetBlobs: unary((_: registry.ForgetBlobsRequest) => Promise.resolve({})),
          pushBlob: serverStream((request: registry.PushBlobRequest, { signal }) => this.#push(request, signal)),
          pushManifest: unary(async (request: registry.PushManifestRequest) => {
            await this.beforeManifest(request);
            const { repository, reference, mediaType, content } = request;
            this.manifests.set(`${repository} ${reference}`, { mediaType, content: Buffer.from(content) });
            this.done.push(`manifest ${repository} ${reference}`);
            return { digest: sha256(content) };
          }),
        }),
      ],
    });
  }

  async *#fetch(root: string, request: registry.FetchBlobRequest): AsyncGenerator<registry.FetchBlobResponse> {
    const bytes = this.blobs.get(`${request.repository} ${request.digest}`);
    if (bytes === undefined) throw notFound('unknown blob');
    const path = join(root, 'exchange', request.exchangeName);
    await writeFile(path, bytes);
    const size = BigInt(bytes.length);
    yield { event: { $case: 'done', value: { path, sizeBytes: size, transferredBytes: size } } };
  }

  async *#push(request: registry.PushBlobRequest, signal: AbortSignal): AsyncGenerator<registry.PushBlobResponse> {
    this.requests.push(request);
    this.running.most = Math.max(this.running.most, (this.running.now += 1));
    try {
      await this.beforeBlob(request, signal);
      yield { event: { $case: 'done', value: this.#take(request) } };
    } finally {
      this.running.now -= 1;
    }
  }

  #take({ repository, digest, path, sizeBytes, mountFrom }: registry.PushBlobRequest): registry.PushedBlob {
    const none = { mountedFrom: '', alreadyExists: false, transferredBytes: 0n };
    const key = `${repository} ${digest}`;
    if (this.blobs.has(key)) {
      this.done.push(`exists ${key}`);
      return { ...none, alreadyExists: true };
    }
    const bytes = readFileSync(path);
    if (sha256(bytes) !== digest || BigInt(bytes.length) !== sizeBytes) throw new Error('not the bytes of the digest');
    this.blobs.set(key, bytes);
    const source = mountFrom.find((from) => this.blobs.has(`${from} ${digest}`));
    this.done.push(`${source === undefined ? 'sent' : 'mounted'} ${key}`);
    if (source !== undefined) return { ...none, mountedFrom: source.slice(source.indexOf('/') + 1) };
    return { ...none, transferredBytes: sizeBytes };
  }
}
