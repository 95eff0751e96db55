import { unavailable } from '@flotilla/errors';

/** How long a start waits for the image service after a boot. */
const waitMs = 300_000;

/**
 * What keeps layers from being used before the image service has looked at them. A power failure may have taken files of layers; the image service
 * unpacks these again before it serves. Shut after a boot, until that service has answered for the first time.
 */
export class LayersGate {
  #opened: Promise<void> | undefined;
  #open: () => void = () => undefined;
  #abandon: (reason: Error) => void = () => undefined;

  get isShut(): boolean {
    return this.#opened !== undefined;
  }

  shut(): void {
    const opened = new Promise<void>((resolve, reject) => {
      this.#open = resolve;
      this.#abandon = reject;
    });
    // Perhaps nobody waits.
    opened.catch(() => undefined);
    const timer = setTimeout(() => this.#abandon(unavailable('the image service does not answer')), waitMs);
    timer.unref();
    void opened.then(() => clearTimeout(timer)).catch(() => undefined);
    this.#opened = opened;
  }

  open(): void {
    this.#open();
    this.#opened = undefined;
  }

  /** The engine stops: who waits need not any more. */
  abandon(): void {
    this.#abandon(unavailable('the engine is shutting down'));
  }

  /** @throws EngineError `unavailable` when the image service stays away, or the engine stops */
  async passed(): Promise<void> {
    await this.#opened;
  }
}
