import type { image } from '@flotilla/proto';

/** A line of progress with everything but `status` optional. */
export type ProgressLine = Pick<image.Progress, 'status'> & Partial<image.Progress>;

const flushMs = 50;

/**
 * Lines of one operation on their way to its reader. Every status of an id reaches the reader in order; of lines that
 * differ only in their numbers the newest does, so a slow reader costs little.
 */
export class ProgressLog {
  #pending: image.Progress[] = [];
  #wake: (() => void) | undefined;
  #isUrgent = false;
  /** What the bar of each id shows, empty without one: a line that only moves it can wait. */
  readonly #statuses = new Map<string, string>();

  push(line: ProgressLine): void {
    const full: image.Progress = {
      id: '',
      current: 0n,
      total: 0n,
      hideCounts: false,
      stream: '',
      auxJson: '',
      hasDetail: false,
      ...line,
    };
    const before = this.#pending.findLastIndex(({ id }) => id === full.id);
    const last = this.#pending[before];
    const isMove = full.hasDetail && full.id !== '' && this.#statuses.get(full.id) === full.status;
    if (isMove && last !== undefined) this.#pending[before] = full;
    else this.#pending.push(full);
    if (!isMove) this.#isUrgent = true;
    if (full.id !== '') this.#statuses.set(full.id, full.hasDetail ? full.status : '');
    this.#wake?.();
  }

  /** Bytes of one layer or file. */
  detail(id: string, status: string, current: number, total: number): void {
    this.push({ id, status, current: BigInt(current), total: BigInt(total), hasDetail: true });
  }

  /**
   * Run `work`; give its lines in batches, then its result. New statuses go at once, mere numbers every 50 ms. When the
   * reader leaves early the signal given to `work` fires and its end is waited for.
   */
  async *during<R>(
    work: (signal: AbortSignal) => Promise<R>,
    signal: AbortSignal,
  ): AsyncGenerator<{ readonly lines: image.Progress[]; readonly result?: R }> {
    const left = new AbortController();
    const outcome: { end?: () => R } = {};
    const running = work(AbortSignal.any([signal, left.signal])).then(
      (value) => {
        outcome.end = () => value;
        this.#wake?.();
      },
      (error: unknown) => {
        outcome.end = () => {
          throw error;
        };
        this.#wake?.();
      },
    );
    try {
      for (;;) {
        const { end } = outcome;
        if (this.#pending.length > 0) yield { lines: this.#take() };
        if (end !== undefined) {
          yield { lines: [], result: end() };
          return;
        }
        await this.#next(() => outcome.end !== undefined);
      }
    } finally {
      left.abort(new Error('the reader left'));
      await running;
    }
  }

  #take(): image.Progress[] {
    const lines = this.#pending;
    this.#pending = [];
    this.#isUrgent = false;
    return lines;
  }

  async #next(isOver: () => boolean): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      const check = (): void => {
        if (this.#isUrgent || isOver()) resolve();
        else if (this.#pending.length > 0) timer ??= setTimeout(resolve, flushMs);
      };
      this.#wake = check;
      check();
    });
    this.#wake = undefined;
    clearTimeout(timer);
  }
}
