import { isEngineError } from '@flotilla/errors';

const PAUSE_MS = 50;
/** How often in a row a stream may break without telling anything before it counts as lost. */
const MAX_BARREN = 200;

/**
 * A stream of an owner that outlives the owner's death: when it breaks because the service is gone, it is opened again.
 * `open` is called with the position in mind that the messages so far have given.
 *
 * @throws what the stream fails with otherwise, and `unavailable` when the service does not come back
 */
export async function* resumed<T>(open: () => AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  let barren = 0;
  for (;;) {
    try {
      for await (const message of open()) {
        barren = 0;
        yield message;
      }
      return;
    } catch (error) {
      if (!isEngineError(error, 'unavailable') || signal.aborted || ++barren > MAX_BARREN) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

/** How long a service that is away may take to accept what it has not answered yet. */
const ACCEPT_MS = 10_000;

/**
 * The messages of a call that is opened again while the owner dies before its first message; what has begun is not repeated.
 *
 * @throws what the call fails with otherwise, and `unavailable` when the service does not come back
 */
export async function* openedAgain<T>(open: () => AsyncIterable<T>, signal: AbortSignal): AsyncGenerator<T> {
  const until = Date.now() + ACCEPT_MS;
  let hasBegun = false;
  for (;;) {
    try {
      for await (const message of open()) {
        hasBegun = true;
        yield message;
      }
      return;
    } catch (error) {
      if (hasBegun || !isEngineError(error, 'unavailable') || signal.aborted || Date.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
