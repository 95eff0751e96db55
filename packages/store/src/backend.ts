export type WriteOperation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer };

/** Keys from `gte` (included) to `lt` (excluded), in byte order. */
export interface KeyRange {
  gte: Buffer;
  lt: Buffer;
  reverse?: boolean;
  limit?: number;
}

/** What a store needs below it: LevelDB, or the memory twin. */
export interface Backend {
  get(key: Buffer): Promise<Buffer | undefined>;
  /** Reads a snapshot: writes made after the first entry was asked for are not seen. */
  entries(range: KeyRange): AsyncIterable<[Buffer, Buffer]>;
  /** All operations or none, on the disk when it resolves. Callers do not overlap calls. */
  write(operations: WriteOperation[]): Promise<void>;
  /** After a failed write: become writable again. Rejects while that is not possible; whether the failed batch is there is then to be read. */
  recover(): Promise<void>;
  close(): Promise<void>;
}
