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
