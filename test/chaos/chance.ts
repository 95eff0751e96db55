// CHAOS_ROUNDS=50 npm run test:chaos: every case so often. Without it: one round, and only of some.
export const isLong = process.env['CHAOS_ROUNDS'] !== undefined;
export const rounds = Number(process.env['CHAOS_ROUNDS'] ?? 1);
/** Of `random`; CHAOS_SEED repeats a run. */
export const seed = Number(process.env['CHAOS_SEED'] ?? (isLong ? Date.now() % 1_000_000 : 1));

/** Repeatable numbers from 0 to 1 (mulberry32). */
export function random(from: number): () => number {
  let state = from >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
