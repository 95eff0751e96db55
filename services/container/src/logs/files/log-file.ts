/** One file of a log, open; it stays readable when its name goes to another or away. */
export interface LogFile {
  /** The inode that it was written to, also when it was compressed since. */
  readonly inode: string;
  readonly isCompressed: boolean;
  /** Bytes of entries. */
  size(): number;
  /** Up to `length` bytes at `offset`, into `buffer` at `at`; gives how many, 0 at the end. */
  read(buffer: Buffer, at: number, length: number, offset: number): Promise<number> | number;
  close(): void;
}
