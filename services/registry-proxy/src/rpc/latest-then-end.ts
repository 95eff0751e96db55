export type Step<P, R> =
  { readonly kind: 'latest'; readonly value: P } | { readonly kind: 'result'; readonly value: R };

/**
 * Turn work that reports its progress into a stream: the newest report whenever the reader is ready (older ones are
 * dropped), then the result. A failure is thrown after the last report. Ending the stream early does not stop the work.
 */
export async function* latestThenEnd<P, R>(
  work: (report: (value: P) => void) => Promise<R>,
): AsyncGenerator<Step<P, R>> {
  let latest: { value: P } | undefined;
  let wake: (() => void) | undefined;
  const outcome: { end?: () => R } = {};
  work((value) => {
    latest = { value };
    wake?.();
  }).then(
    (value) => {
      outcome.end = () => value;
      wake?.();
    },
    (error: unknown) => {
      outcome.end = () => {
        throw error;
      };
      wake?.();
    },
  );
  for (;;) {
    const report = latest as { value: P } | undefined;
    latest = undefined;
    if (report !== undefined) yield { kind: 'latest', value: report.value };
    else if (outcome.end !== undefined) {
      yield { kind: 'result', value: outcome.end() };
      return;
    } else {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
}
