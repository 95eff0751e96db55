import type { FileHandle } from 'node:fs/promises';
import { dataLoss } from '@flotilla/errors';
import type { BlobProgress } from '../blobs/blob-download.js';
import { discard } from '../upstream/http-transport.js';
import type { HttpBody, HttpResponse } from '../upstream/http-transport.js';
import { pullScope } from '../upstream/manifests.js';
import { parseUrl } from '../upstream/parse-url.js';
import type { ReachedRegistry, RepositoryRequest } from '../upstream/registry-client.js';
import { RegistryError, TransportError } from '../upstream/registry-error.js';
import { requestName } from '../upstream/transport-error.js';
import type { BlobUpload, UploadDeps, UploadOutcome } from './upload.js';
import { checkStoredDigest, pushScope } from './pushed-content.js';

const readBytes = 512 * 1024;
const maxMounts = 3;
const abandonTimeoutMs = 5_000;

/** Answers to a piece that mean: this registry takes a blob as one. */
const refusesPieces = new Set([400, 405, 411, 413, 415, 501]);

/**
 * One blob on its way into one repository, over as many tries as it takes. It remembers where the registry took the
 * upload to and how far it stands; a registry that lost it begins anew.
 */
export class UploadSession {
  readonly #deps: UploadDeps;
  readonly #upload: BlobUpload;
  readonly #report: (progress: BlobProgress) => void;
  readonly #signal: AbortSignal;
  #registry: ReachedRegistry | undefined;
  #location: URL | undefined;
  /** An upload that will not be gone on with. */
  #unwanted: URL | undefined;
  #offset = 0;
  #transferred = 0;
  #isWhole: boolean;
  #wasDigestWrong = false;

  constructor(deps: UploadDeps, upload: BlobUpload, report: (progress: BlobProgress) => void, signal: AbortSignal) {
    this.#deps = deps;
    this.#upload = upload;
    this.#report = report;
    this.#signal = signal;
    this.#isWhole = upload.size <= deps.chunkBytes;
  }

  /** Whether the registry has answered this upload at all. */
  get isReached(): boolean {
    return this.#registry !== undefined;
  }

  /** Bytes that the registry has, as far as it has said. */
  get offset(): number {
    return this.#offset;
  }

  /** One try: whatever is left to do. */
  async run(registry: ReachedRegistry): Promise<UploadOutcome> {
    this.#registry = registry;
    await this.#cancelUnwanted();
    await this.#askWhereItStands();
    const outcome = await this.#open();
    if (outcome !== undefined) return outcome;
    if (!this.#isWhole) await this.#sendPieces();
    await this.#commit();
    return this.#sent();
  }

  /** Whether a new upload from the start may help although the registry refused. */
  mayStartOver(error: unknown): boolean {
    if (!(error instanceof RegistryError)) return false;
    if (error.status === 404 && error.code.startsWith('blob upload')) {
      this.#forget();
      return true;
    }
    if (error.code === 'digest invalid') {
      // Bytes may have been changed on the way, once.
      if (this.#wasDigestWrong) return false;
      this.#wasDigestWrong = true;
      this.#drop();
      return true;
    }
    if (!this.#isWhole && refusesPieces.has(error.status)) {
      this.#isWhole = true;
      this.#drop();
      return true;
    }
    return false;
  }

  /** Tell the registry that the rest will not come. Best effort, also after a cancellation. */
  async abandon(): Promise<void> {
    this.#drop();
    await this.#cancelUnwanted();
  }

  /** Have an open upload, or find that none is needed. */
  async #open(): Promise<UploadOutcome | undefined> {
    if (this.#location !== undefined) return undefined;
    // An upload whose answer was lost may be complete; then it counts as sent.
    if (await this.#exists()) return this.#transferred > 0 ? this.#sent() : { kind: 'exists' };
    const from = await this.#mount();
    if (from !== undefined) return { kind: 'mounted', from };
    await this.#begin();
    this.#tell(0);
    return undefined;
  }

  #sent(): UploadOutcome {
    return { kind: 'sent', transferred: this.#transferred };
  }

  async #exists(): Promise<boolean> {
    const { repository, digest } = this.#upload;
    try {
      await this.#ask({ method: 'HEAD', path: `${repository.path}/blobs/${digest}` });
      return true;
    } catch (error) {
      // Whatever else it does not like it will say in words when asked for an upload.
      if (error instanceof RegistryError && !error.isRetryable) return false;
      throw error;
    }
  }

  /** The repository that gave the blob. A registry that cannot or may not mount opens an upload instead. */
  async #mount(): Promise<string | undefined> {
    const { repository, digest, mountFrom } = this.#upload;
    for (const from of mountFrom.slice(0, maxMounts)) {
      const query = new URLSearchParams({ mount: digest, from });
      const scope = `${pushScope(repository)} ${pullScope({ ...repository, path: from })}`;
      await this.abandon();
      try {
        const response = await this.#ask({
          method: 'POST',
          path: `${repository.path}/blobs/uploads/?${query.toString()}`,
          scope,
        });
        if (response.status === 201) {
          checkStoredDigest(response, digest);
          return from;
        }
        this.#follow(response);
      } catch (error) {
        if (!(error instanceof RegistryError) || error.isRetryable) throw error;
      }
    }
    return undefined;
  }

  /** A registry that did not mount has opened an upload already. */
  async #begin(): Promise<void> {
    if (this.#location !== undefined) return;
    const { repository } = this.#upload;
    this.#follow(await this.#ask({ method: 'POST', path: `${repository.path}/blobs/uploads/` }));
  }

  async #askWhereItStands(): Promise<void> {
    const path = this.#location;
    if (path === undefined) return;
    try {
      const response = await this.#ask({ method: 'GET', path });
      this.#follow(response);
      this.#offset = takenBytes(response) ?? 0;
      if (this.#offset <= this.#upload.size) return;
      await this.abandon();
    } catch (error) {
      if (!(error instanceof RegistryError) || error.isRetryable) throw error;
      // Lost, complete, or never to be resumed.
      this.#forget();
    }
  }

  async #sendPieces(): Promise<void> {
    const { size } = this.#upload;
    while (this.#offset < size) {
      const begin = this.#offset;
      const end = Math.min(begin + this.#deps.chunkBytes, size);
      const response = await this.#ask({
        method: 'PATCH',
        path: this.#here(),
        headers: { 'content-type': 'application/octet-stream', 'content-range': `${begin}-${end - 1}` },
        body: this.#bytes(begin, end),
      });
      this.#follow(response);
      if (response.status === 416) throw outOfStep(response);
      const taken = takenBytes(response) ?? end;
      if (taken <= begin || taken > end) throw outOfStep(response);
      this.#offset = taken;
    }
  }

  /** The last request: with all bytes that are not there yet. */
  async #commit(): Promise<void> {
    const { size, digest } = this.#upload;
    const url = new URL(this.#here());
    url.searchParams.set('digest', digest);
    const rest = this.#offset < size;
    const response = await this.#ask({
      method: 'PUT',
      path: url,
      headers: {
        ...(rest ? { 'content-type': 'application/octet-stream' } : {}),
        ...(rest && this.#offset > 0 ? { 'content-range': `${this.#offset}-${size - 1}` } : {}),
      },
      body: this.#bytes(this.#offset, size),
      headersTimeoutMs: this.#deps.commitTimeoutMs,
    });
    if (response.status === 416) throw outOfStep(response);
    this.#forget();
    checkStoredDigest(response, digest);
  }

  #here(): URL {
    if (this.#location === undefined) throw noLocation(this.#upload.digest);
    return this.#location;
  }

  /** Later requests go where the answer says, which may be relative and carry state. */
  #follow(response: HttpResponse): void {
    const location = response.headers.get('location');
    if (location === undefined) return;
    const next = parseUrl(location, response.url);
    if (next === null || !['http:', 'https:'].includes(next.protocol)) throw noLocation(this.#upload.digest);
    this.#location = next;
  }

  #forget(): void {
    this.#location = undefined;
    this.#offset = 0;
  }

  #drop(): void {
    this.#unwanted ??= this.#location;
    this.#forget();
  }

  async #cancelUnwanted(): Promise<void> {
    const path = this.#unwanted;
    this.#unwanted = undefined;
    if (path === undefined) return;
    try {
      await this.#ask({ method: 'DELETE', path, signal: AbortSignal.timeout(abandonTimeoutMs) });
    } catch {
      // It drops what nobody ends by its own rules.
    }
  }

  /** A request whose answer has no body of interest. */
  async #ask(
    request: Pick<RepositoryRequest, 'method' | 'path' | 'headers' | 'body' | 'headersTimeoutMs'> &
      Partial<Pick<RepositoryRequest, 'scope' | 'signal'>>,
  ): Promise<HttpResponse> {
    const { repository, credentials } = this.#upload;
    const { client } = this.#deps;
    if (this.#registry === undefined) throw new TransportError('no registry was reached', { isRetryable: true });
    const response = await client.request(this.#registry, {
      scope: pushScope(repository),
      credentials,
      signal: this.#signal,
      ...request,
    });
    await discard(response.body);
    return response;
  }

  #tell(sent: number): void {
    this.#report({ current: sent, total: this.#upload.size, status: '' });
  }

  #bytes(begin: number, end: number): HttpBody {
    const { file, digest } = this.#upload;
    const onSent = (count: number, at: number): void => {
      this.#transferred += count;
      this.#tell(at);
    };
    return { size: end - begin, read: () => readSlice(file, digest, begin, end, onSent) };
  }
}

async function* readSlice(
  file: FileHandle,
  digest: string,
  begin: number,
  end: number,
  onSent: (count: number, at: number) => void,
): AsyncGenerator<Buffer> {
  for (let at = begin; at < end;) {
    // Not one buffer for all: the socket still holds the last ones.
    const buffer = Buffer.allocUnsafe(Math.min(readBytes, end - at));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, at);
    if (bytesRead === 0) throw dataLoss(`the content of ${digest} ends at ${at} bytes`);
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
    onSent(bytesRead, at);
  }
}

/** How many bytes of the upload the registry has: `Range: 0-<last>`. A new upload is `0-0` too, or has none. */
function takenBytes(response: HttpResponse): number | undefined {
  const last = /^(?:bytes[= ])?0-(\d{1,15})$/.exec(response.headers.get('range') ?? '')?.[1];
  if (last === undefined) return undefined;
  return last === '0' ? 0 : Number(last) + 1;
}

const noLocation = (digest: string): RegistryError =>
  new RegistryError(202, 'http', `the registry opened no upload for ${digest}`);

const outOfStep = (response: HttpResponse): TransportError =>
  new TransportError(`${requestName('PATCH', response.url)}: the registry is out of step`, { isRetryable: true });
