import { progressBar, renderProgress } from '@flotilla/docker-api';
import type { image } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';

/** One line of a pull, push or load as dockerd prints it. */
export function progressLine(progress: image.Progress): string {
  if (progress.stream !== '') return renderProgress({ stream: progress.stream });
  if (progress.auxJson !== '')
    return renderProgress({ progressDetail: {}, aux: JSON.parse(progress.auxJson) as unknown });
  const { id, status } = progress;
  const identified = id === '' ? {} : { id };
  if (!progress.hasDetail) {
    // Steps of a layer have an empty detail, sentences about the whole have none.
    const isStep = id !== '' && !status.startsWith('Pulling from ');
    return renderProgress({ status, ...(isStep ? { progressDetail: {} } : {}), ...identified });
  }
  const detail = {
    ...(progress.current === 0n ? {} : { current: Number(progress.current) }),
    ...(progress.total === 0n ? {} : { total: Number(progress.total) }),
    ...(progress.hideCounts ? { hidecounts: true } : {}),
  };
  const bar = progressBar(detail);
  return renderProgress({
    status,
    progressDetail: detail,
    ...(bar === '' ? {} : { progress: bar }),
    ...identified,
  });
}

/** A message that may carry progress and the revision of the owner's state. */
interface ProgressBatch {
  readonly progress: readonly image.Progress[];
  readonly revision?: bigint;
}

/**
 * Reply with the progress of a long operation. The status goes out with the first line; what fails later is told in band.
 * @param settled waits until the read model holds the result
 */
export async function streamProgress(
  call: ApiCall,
  batches: AsyncIterable<ProgressBatch>,
  settled: (revision: bigint) => Promise<void>,
): Promise<void> {
  for await (const { progress, revision = 0n } of batches) {
    if (progress.length > 0) {
      if (!call.res.headersSent) call.startJsonStream();
      await call.write(progress.map(progressLine).join(''));
    }
    if (revision > 0n) await settled(revision);
  }
  if (!call.res.headersSent) call.startJsonStream();
  call.end();
}
