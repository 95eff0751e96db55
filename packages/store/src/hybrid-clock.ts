const millisecond = 1_000_000n;
// Another host's clock may run ahead; further than this it is wrong and following it would spoil ours.
const maxDriftNs = 60_000n * millisecond;

/**
 * A hybrid logical clock: the wall clock in nanoseconds since the epoch, never standing still and never going back in one process.
 * What is observed from a callee (metadata of a gRPC reply) happened before what is stamped afterwards, whatever the two wall clocks say.
 */
export class HybridClock {
  readonly #wallNs: () => bigint;
  #last = 0n;

  /** @param wallNs the wall clock, in nanoseconds; a test gives its own. */
  constructor(wallNs: () => bigint = preciseWallClock()) {
    this.#wallNs = wallNs;
  }

  /** Strictly greater than everything returned or observed so far. */
  now(): bigint {
    const wall = this.#wallNs();
    this.#last = wall > this.#last ? wall : this.#last + 1n;
    return this.#last;
  }

  /** Take note of a time that another process stamped. More than a minute ahead of the wall clock it is ignored. */
  observe(remote: bigint): void {
    if (remote > this.#last && remote <= this.#wallNs() + maxDriftNs) this.#last = remote;
  }
}

// Date.now() has milliseconds only: the monotonic clock fills in the rest, anchored anew when the two drift apart (the wall clock was set).
// Never behind Date.now(), so that what happens after a client has read its clock is not stamped before that.
function preciseWallClock(): () => bigint {
  let anchorWall = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
  let anchorMonotonic = process.hrtime.bigint();
  return () => {
    const monotonic = process.hrtime.bigint();
    const estimate = anchorWall + (monotonic - anchorMonotonic);
    const wall = BigInt(Date.now()) * millisecond;
    const ahead = estimate - wall;
    if (ahead >= 0n && ahead < 2n * millisecond) return estimate;
    if (ahead > -2n * millisecond && ahead < 0n) return wall;
    anchorWall = wall;
    anchorMonotonic = monotonic;
    return wall;
  };
}
