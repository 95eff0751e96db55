const NS_PER_SECOND = 1_000_000_000;

/** Length of `2026-01-02T03:04:05.000000001Z`. */
export const TIME_BYTES = 30;

/** Text as Go's RFC3339Nano with nine digits: what `docker logs --timestamps` shows. */
export function timeText(ns: bigint): string {
  const seconds = ns / 1_000_000_000n;
  return `${secondsText(Number(seconds))}${String(ns - seconds * 1_000_000_000n).padStart(9, '0')}Z`;
}

function secondsText(seconds: number): string {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.`;
}

/**
 * Stamps the lines of one log: strictly increasing, never behind the wall clock, never ending in the digit 0, so that Go's RFC3339Nano, which drops
 * trailing zeros, is always nine digits long and a line can be found by its time.
 *
 * The text is kept as bytes that are counted up in place: making a date for each line costs more than the line.
 */
export class LineClock {
  /** The current time as text; to be copied before the next `tick`. */
  readonly text = Buffer.alloc(TIME_BYTES);
  #seconds = 0;
  #nanos = 0;
  #anchorMs = 0;
  #anchorHr = 0;

  /** Begin after `text`, the time of the last line of a log that exists. Anything that is not such a text is ignored. */
  startAfter(text: string): void {
    const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/.exec(text);
    if (match === null) return;
    this.#seconds = Math.floor(Date.parse(`${match[1] ?? ''}Z`) / 1000);
    this.#nanos = Number((match[2] ?? '').padEnd(9, '0'));
    this.#write();
  }

  /** Move to now, at least one step ahead. To be called once for each piece that was read. */
  advance(): void {
    // Date has milliseconds only; the monotonic clock fills them in. They are matched again when the wall clock was set.
    const hr = performance.now();
    let ms = this.#anchorMs + (hr - this.#anchorHr);
    const wall = Date.now();
    if (ms < wall || ms > wall + 1) {
      ms = wall;
      this.#anchorMs = wall;
      this.#anchorHr = hr;
    }
    const seconds = Math.floor(ms / 1000);
    let nanos = Math.floor((ms - seconds * 1000) * 1e6);
    if (nanos % 10 === 0) nanos++;
    if (seconds > this.#seconds || (seconds === this.#seconds && nanos > this.#nanos)) {
      this.#seconds = seconds;
      this.#nanos = nanos;
      this.#write();
    } else {
      this.tick();
    }
  }

  /** One step ahead. */
  tick(): void {
    this.#nanos++;
    if (this.#nanos % 10 === 0) this.#nanos++;
    const { text } = this;
    // The last digit runs from 1 to 9; carry into the eight before it.
    let at = TIME_BYTES - 2;
    const last = text[at] ?? 0;
    if (last < 0x39) {
      text[at] = last + 1;
      return;
    }
    text[at] = 0x31;
    for (at--; at >= 20; at--) {
      const digit = text[at] ?? 0;
      if (digit < 0x39) {
        text[at] = digit + 1;
        return;
      }
      text[at] = 0x30;
    }
    this.#seconds++;
    this.#nanos = this.#nanos % NS_PER_SECOND || 1;
    this.#write();
  }

  #write(): void {
    this.text.write(secondsText(this.#seconds), 0, 'latin1');
    this.text.write(`${String(this.#nanos).padStart(9, '0')}Z`, 20, 'latin1');
  }
}
