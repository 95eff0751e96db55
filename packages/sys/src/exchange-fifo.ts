import { closeSync, constants, fstatSync, openSync, readdirSync, rmSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { Socket } from 'node:net';
import type { SocketConstructorOpts } from 'node:net';
import { join } from 'node:path';
import { mkfifo } from './files.js';
import { setPipeSize } from './pipes.js';

const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY } = constants;
const prefix = 'fifo-';
const namePattern = /^fifo-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** So that the two sides take turns seldom. */
const fifoBytes = 1 << 20;
const readBytes = 1 << 16;

/**
 * A FIFO in the exchange directory through which two services on one machine pass bytes beside a call.
 *
 * Whoever makes it tells its name in the call; the other side opens it with {@link openExchangeFifo}, which also removes
 * the name, and says so; only then are bytes passed. Each side hears of the other's death from the kernel: a reader by the
 * end of the bytes, a writer by EPIPE. That end says nothing of whether they were all: the call does.
 */
export class ExchangeFifo implements Disposable {
  readonly name: string;
  readonly #path: string;
  #fd: number;
  /** Keeps a reader that comes first from finding the end. */
  #guardFd: number;

  private constructor(name: string, path: string, fd: number, guardFd: number) {
    this.name = name;
    this.#path = path;
    this.#fd = fd;
    this.#guardFd = guardFd;
  }

  /** With the maker's end open; undefined where there is no such directory or it can hold no FIFO. */
  static make(directory: string, end: 'read' | 'write'): ExchangeFifo | undefined {
    const name = `${prefix}${randomUUID()}`;
    const path = join(directory, name);
    try {
      mkfifo(path, 0o600);
    } catch {
      return undefined;
    }
    let guardFd = -1;
    try {
      if (end === 'write') guardFd = openSync(path, O_RDWR | O_NONBLOCK);
      const fd = openSync(path, (end === 'write' ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
      return new ExchangeFifo(name, path, fd, guardFd);
    } catch {
      if (guardFd >= 0) closeSync(guardFd);
      rmSync(path, { force: true });
      return undefined;
    }
  }

  /** The maker's end, once the other side has its own; it does not block, and is the caller's to close. */
  take(): number {
    this.#dropGuard();
    const fd = this.#fd;
    this.#fd = -1;
    return fd;
  }

  /** Removes the name, and closes what nobody has taken. */
  [Symbol.dispose](): void {
    this.#dropGuard();
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
    rmSync(this.#path, { force: true });
  }

  #dropGuard(): void {
    if (this.#guardFd >= 0) closeSync(this.#guardFd);
    this.#guardFd = -1;
  }
}

/**
 * The other end of an {@link ExchangeFifo}, which does not block and is the caller's to close; its name goes.
 *
 * undefined when it is not there: the two sides have different directories, or its maker is gone.
 */
export function openExchangeFifo(directory: string, name: string, end: 'read' | 'write'): number | undefined {
  if (!namePattern.test(name)) return undefined;
  const path = join(directory, name);
  let fd: number;
  try {
    fd = openSync(path, (end === 'write' ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOFOLLOW);
  } catch {
    return undefined;
  }
  if (!fstatSync(fd).isFIFO()) {
    closeSync(fd);
    return undefined;
  }
  rmSync(path, { force: true });
  try {
    setPipeSize(fd, fifoBytes);
  } catch {
    // It works with less.
  }
  return fd;
}

/** Removes the FIFOs that services left there when they were killed. Only for the one service that makes them, at its start. */
export function sweepExchangeFifos(directory: string): void {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return;
  }
  for (const name of names) if (namePattern.test(name)) rmSync(join(directory, name), { force: true });
}

/**
 * What comes out of a FIFO until nobody has it open to write any more. Nothing is read ahead of what is asked for, so that
 * others may read from `fd` in between. It is closed when the loop is left, or by `signal` even if none begins.
 */
export class FifoReader implements AsyncIterable<Buffer> {
  /** Does not block; closed with the reader. */
  readonly fd: number;
  readonly #socket: Socket;
  readonly #signal: AbortSignal;
  readonly #halt = (): void => void this.#socket.destroy();
  #arrived: Buffer | undefined;
  #isOver = false;
  #wake = (): void => undefined;

  constructor(fd: number, signal: AbortSignal) {
    this.fd = fd;
    this.#signal = signal;
    this.#socket = new Socket({
      ...{ fd, readable: true, writable: false },
      onread: {
        buffer: () => Buffer.allocUnsafeSlow(readBytes),
        callback: (count: number, buffer: Uint8Array) => {
          this.#arrived = Buffer.from(buffer.buffer, buffer.byteOffset, count);
          this.#wake();
          return false;
        },
      },
    } as SocketConstructorOpts);
    const over = (): void => {
      this.#isOver = true;
      this.#wake();
    };
    this.#socket.on('error', over);
    this.#socket.on('end', over);
    this.#socket.on('close', over);
    signal.addEventListener('abort', this.#halt, { once: true });
    if (signal.aborted) this.#halt();
  }

  /** What is there next, one at a time; undefined at the end. @throws the signal's reason */
  async read(): Promise<Buffer | undefined> {
    this.#signal.throwIfAborted();
    if (!this.#isOver) {
      this.#socket.resume();
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    this.#signal.throwIfAborted();
    const chunk = this.#arrived;
    this.#arrived = undefined;
    return chunk;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Buffer, void, undefined> {
    try {
      for (let chunk = await this.read(); chunk !== undefined; chunk = await this.read()) yield chunk;
    } finally {
      this.close();
    }
  }

  close(): void {
    this.#signal.removeEventListener('abort', this.#halt);
    this.#socket.destroy();
  }
}

/**
 * Writes everything into a FIFO, as fast as it is read, and closes it.
 *
 * @returns how many bytes; undefined when nobody reads it any more. @throws the source's error, or the signal's reason
 */
export async function writeFifo(
  fd: number,
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<number | undefined> {
  const socket = new Socket({ fd, readable: false, writable: true });
  let wake = (): void => undefined;
  const isClosed = (): boolean => socket.closed;
  const halt = (): void => void socket.destroy();
  // Of errors there is one: nobody reads.
  socket.on('error', () => undefined);
  socket.on('close', () => wake());
  socket.on('drain', () => wake());
  signal.addEventListener('abort', halt, { once: true });
  if (signal.aborted) halt();
  try {
    let size = 0;
    for await (const chunk of source) {
      if (isClosed()) break;
      size += chunk.length;
      if (!socket.write(chunk)) await new Promise<void>((resolve) => (wake = resolve));
      if (isClosed()) break;
    }
    signal.throwIfAborted();
    if (isClosed()) return undefined;
    socket.end();
    await new Promise<void>((resolve) => {
      wake = resolve;
      if (isClosed()) resolve();
    });
    signal.throwIfAborted();
    return socket.errored === null ? size : undefined;
  } finally {
    signal.removeEventListener('abort', halt);
    socket.destroy();
  }
}
