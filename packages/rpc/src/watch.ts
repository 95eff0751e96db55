/** A message of a `Watch` call: first every object, then `synced`, then what changes, with the owner's revision. */
export interface WatchMessage<M> {
  revision: bigint;
  change:
    | { $case: 'upsert'; value: M }
    | { $case: 'removed'; value: string }
    | { $case: 'synced'; value: Record<string, never> };
}

/** Objects by key; `undefined`: gone. */
export type Changes<R> = Iterable<readonly [key: string, record: R | undefined]>;

/** What an owner offers to be watched. */
export interface WatchSource<R> {
  /** Every object as it is now, and the revision of that. */
  snapshot(): { readonly revision: bigint; readonly records: readonly R[] };
  /** Be told of every change from now on, in the order of revisions. @returns what ends it */
  subscribe(listener: (revision: bigint, changes: Changes<R>) => void): () => void;
}

/**
 * The messages of one `Watch` call, until the signal fires.
 *
 * Several changes of one object are folded into the newest while the reader is slow, so a reader costs at most two entries per
 * object. Of changes that share a revision only the last carries it: whoever has seen it has seen them all.
 *
 * @param render the message form of a record; `undefined` when the caller is not to see it
 */
export async function* watch<R, M>(
  source: WatchSource<R>,
  render: (record: R) => M | undefined,
  signal: AbortSignal,
): AsyncGenerator<WatchMessage<M>, void, undefined> {
  let pending = new Map<string, R | undefined>();
  let pendingRevision = 0n;
  let wake = (): void => undefined;
  const unsubscribe = source.subscribe((revision, changes) => {
    for (const [key, record] of changes) {
      pending.delete(key); // to the end: in the order of revisions
      pending.set(key, record);
    }
    pendingRevision = revision;
    wake();
  });
  const onAbort = (): void => wake();
  signal.addEventListener('abort', onAbort);
  try {
    // Taken in the same turn as the subscription: nothing is missed or told twice.
    const { revision: first, records } = source.snapshot();
    for (const record of records) {
      const value = render(record);
      if (value !== undefined) yield { revision: first, change: { $case: 'upsert', value } };
    }
    yield { revision: first, change: { $case: 'synced', value: {} } };
    let sent = first;
    while (!signal.aborted) {
      if (pending.size === 0) {
        await new Promise<void>((resolve) => (wake = resolve));
        continue;
      }
      const changes = [...pending].flatMap(([key, record]) => toChange(key, record, render));
      const revision = pendingRevision;
      pending = new Map();
      for (const [at, change] of changes.entries()) {
        yield { revision: at === changes.length - 1 ? revision : sent, change };
      }
      sent = revision;
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    unsubscribe();
  }
}

function toChange<R, M>(
  key: string,
  record: R | undefined,
  render: (record: R) => M | undefined,
): WatchMessage<M>['change'][] {
  if (record === undefined) return [{ $case: 'removed', value: key }];
  const value = render(record);
  return value === undefined ? [] : [{ $case: 'upsert', value }];
}
