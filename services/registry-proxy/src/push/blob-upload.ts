import { isEngineError } from '@flotilla/errors';
import type { BlobProgress } from '../blobs/blob-download.js';
import { TransportError, isRetryable } from '../upstream/registry-error.js';
import { backoff, retryDelayMs } from '../upstream/retry.js';
import type { BlobUpload, UploadDeps, UploadOutcome } from './upload.js';
import { UploadSession } from './upload-session.js';

/** A registry that took this much more than ever before has earned all its tries anew. */
const worthwhileBytes = 1024 * 1024;

/**
 * Bring a blob into a repository: nothing is sent if it is there, or in another repository from where it can be
 * mounted. A cut upload goes on where the registry says it stands.
 *
 * @throws RegistryError or TransportError when the registry refuses or the tries are used up; EngineError `dataLoss`
 * when it stored something else, or the file ends early. What was begun at the registry is taken back.
 */
export async function uploadBlob(
  deps: UploadDeps,
  upload: BlobUpload,
  report: (progress: BlobProgress) => void,
  signal: AbortSignal,
): Promise<UploadOutcome> {
  const { client, retry } = deps;
  const session = new UploadSession(deps, upload, report, signal);
  let furthest = 0;
  for (let attempt = 1; ; attempt += 1) {
    try {
      const { domain } = upload.repository;
      return await client.withOrigin(domain, signal, (registry) => session.run(registry), 'push');
    } catch (error) {
      // A registry that cannot be reached in the first place is told of at once, as by dockerd.
      const isLost = error instanceof TransportError && !session.isReached;
      const isHopeless = isEngineError(error) || isLost || !(isRetryable(error) || session.mayStartOver(error));
      if (session.offset >= furthest + worthwhileBytes) {
        furthest = session.offset;
        attempt = 1;
      }
      if (signal.aborted || isHopeless || attempt >= retry.attempts) {
        await session.abandon();
        signal.throwIfAborted();
        throw error;
      }
      const seconds = Math.max(1, Math.round(retryDelayMs(retry, attempt, error) / 1000));
      const status = `Retrying in ${seconds} ${seconds === 1 ? 'second' : 'seconds'}`;
      report({ current: session.offset, total: upload.size, status });
      await backoff(retry, attempt, error, signal).catch(async (reason: unknown) => {
        await session.abandon();
        throw reason;
      });
    }
  }
}
