import { cancelled } from '@flotilla/errors';

export interface AppliedLayer {
  chainId: string;
  /** Sum of the sizes of the layer's files. */
  sizeBytes: bigint;
}

/** A layer that is being unpacked, for everybody who wants it. */
export interface SharedApply {
  done: Promise<AppliedLayer>;
  stop: AbortController;
  waiters: number;
  listeners: Set<(readBytes: number) => void>;
}

interface Waiter {
  readonly signal?: AbortSignal;
  readonly onProgress?: (readBytes: number) => void;
}

/** Waits for a shared piece of work, as one who is counted already; the last one to give up stops it. */
export async function waitForApply(apply: SharedApply, { signal, onProgress }: Waiter): Promise<AppliedLayer> {
  if (onProgress !== undefined) apply.listeners.add(onProgress);
  let giveUp: (() => void) | undefined;
  const gaveUp = new Promise<never>((_, reject) => {
    giveUp = () => reject(cancelled('cancelled'));
    signal?.addEventListener('abort', giveUp, { once: true });
    if (signal?.aborted === true) giveUp();
  });
  try {
    return await Promise.race([apply.done, gaveUp]);
  } finally {
    if (giveUp !== undefined) signal?.removeEventListener('abort', giveUp);
    if (onProgress !== undefined) apply.listeners.delete(onProgress);
    if (--apply.waiters === 0) apply.stop.abort();
  }
}
