// Holes remembered per outbox; more than this many events in flight behind a refused one does not occur.
const maxHoles = 1024;

interface OutboxPosition {
  last: bigint;
  /** Sequences below `last` that were jumped over and may still come. */
  holes: Set<bigint>;
}

/**
 * Recognises events that were delivered before: NATS de-duplicates for two minutes only, and a service publishes its last ten seconds again after each start, its last ten minutes after a boot.
 *
 * Per outbox, sequences at or below the last one are old, but for those that were jumped over: an event refused once can come behind its successor.
 */
export class SeenEvents {
  readonly #positions = new Map<string, OutboxPosition>();

  /** Take note of an event id (`<service>-<sequence>`); false when it was seen before or is no event id. */
  add(id: string): boolean {
    const match = /^(.+)-([0-9]+)$/.exec(id);
    if (match?.[1] === undefined || match[2] === undefined) return false;
    const sequence = BigInt(match[2]);
    const position = this.#positions.get(match[1]);
    if (position === undefined) {
      this.#positions.set(match[1], { last: sequence, holes: new Set() });
      return true;
    }
    if (sequence <= position.last) return position.holes.delete(sequence);
    const firstHole = sequence - position.last > BigInt(maxHoles) ? sequence - BigInt(maxHoles) : position.last + 1n;
    for (let hole = firstHole; hole < sequence; hole += 1n) position.holes.add(hole);
    for (const oldest of position.holes) {
      if (position.holes.size <= maxHoles) break;
      position.holes.delete(oldest);
    }
    position.last = sequence;
    return true;
  }
}
