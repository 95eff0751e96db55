// The part of leveldown 6 that this package uses; the package ships no types. See github.com/Level/leveldown README.
declare module 'leveldown' {
  export interface OpenOptions {
    createIfMissing?: boolean;
    errorIfExists?: boolean;
    compression?: boolean;
    cacheSize?: number;
    writeBufferSize?: number;
    maxOpenFiles?: number;
  }

  export interface IteratorOptions {
    gte?: Buffer;
    lt?: Buffer;
    reverse?: boolean;
    limit?: number;
    keyAsBuffer?: boolean;
    valueAsBuffer?: boolean;
  }

  export type BatchOperation = { type: 'put'; key: Buffer; value: Buffer } | { type: 'del'; key: Buffer };

  type Done = (error: Error | null | undefined) => void;

  export interface LevelIterator {
    next(done: (error: Error | null | undefined, key?: Buffer, value?: Buffer) => void): void;
    end(done: Done): void;
  }

  export interface LevelDown {
    readonly status: 'new' | 'opening' | 'open' | 'closing' | 'closed';
    open(options: OpenOptions, done: Done): void;
    close(done: Done): void;
    getMany(
      keys: Buffer[],
      done: (error: Error | null | undefined, values: (Buffer | undefined)[] | undefined) => void,
    ): void;
    batch(operations: BatchOperation[], options: { sync: boolean }, done: Done): void;
    iterator(options: IteratorOptions): LevelIterator;
  }

  export default function leveldown(location: string): LevelDown;
}
