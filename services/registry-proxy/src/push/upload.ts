import type { FileHandle } from 'node:fs/promises';
import type { Digest, Reference } from '@flotilla/oci';
import type { Credentials } from '../upstream/credentials.js';
import type { RegistryClient } from '../upstream/registry-client.js';
import type { RetryRules } from '../upstream/retry.js';

/** One blob on its way into a repository. */
export interface BlobUpload {
  readonly repository: Reference;
  readonly digest: Digest;
  readonly size: number;
  /** Open for reading; stays the caller's. */
  readonly file: FileHandle;
  readonly credentials: Credentials | undefined;
  /** Repositories of the same registry that should have it, the likeliest first. */
  readonly mountFrom: readonly string[];
}

/** How it came to be there. */
export type UploadOutcome =
  | { readonly kind: 'exists' }
  /** `from`: the other repository, inside the registry. */
  | { readonly kind: 'mounted'; readonly from: string }
  | { readonly kind: 'sent'; readonly transferred: number };

/** What uploads work with. */
export interface UploadDeps {
  readonly client: RegistryClient;
  readonly retry: RetryRules;
  /** Larger blobs go in pieces of this many bytes, so that a cut costs one piece. */
  readonly chunkBytes: number;
  /** For the head of the answer to the last request of a blob: the registry checks and moves it before it answers. */
  readonly commitTimeoutMs: number;
}
