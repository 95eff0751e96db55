import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { EngineError } from '@flotilla/errors';
import { dataLoss, internal } from '@flotilla/errors';
import type { TarCompression } from '@flotilla/layer-tar';

export type LayerCompression = TarCompression;

/** Node's zlib as a program, where igzip is missing: half as fast. */
const zlibProgram = (codec: 'createGunzip' | 'createGzip') =>
  `require('stream').pipeline(process.stdin, require('zlib').${codec}({ level: 1 }), process.stdout, (error) => {
     if (error) { process.stderr.write(error.message); process.exitCode = 1; }
   });`;

export function decompressorCommand(compression: 'gzip' | 'zstd'): [string, ...string[]] {
  if (compression === 'zstd') return ['zstd', '-dcq'];
  return isInstalled('igzip') ? ['igzip', '-d', '-c'] : [process.execPath, '-e', zlibProgram('createGunzip')];
}

/** The same bytes for the same input: no time in the header, so that a layer made twice is one blob. */
export function compressorCommand(): [string, ...string[]] {
  return isInstalled('igzip') ? ['igzip', '-1', '-n', '-c'] : [process.execPath, '-e', zlibProgram('createGzip')];
}

function isInstalled(program: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

const maxMessageBytes = 2048;

/** A running decompressor or compressor between two descriptors, which the caller keeps and closes. */
export class CodecProcess {
  readonly #child: ChildProcess;
  readonly #program: string;
  readonly #ended: Promise<{ code: number | null; killedBy: NodeJS.Signals | null; failure?: NodeJS.ErrnoException }>;
  #isKilled = false;
  #message = '';

  constructor(command: [string, ...string[]], inputFd: number, outputFd: number) {
    const [program, ...argv] = command;
    this.#program = program;
    this.#child = spawn(program, argv, { stdio: [inputFd, outputFd, 'pipe'], env: { PATH: process.env['PATH'] } });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (this.#message.length < maxMessageBytes) this.#message += text;
    });
    this.#ended = new Promise((resolve) => {
      this.#child.once('error', (failure) => resolve({ code: null, killedBy: null, failure }));
      this.#child.once('close', (code, killedBy) => resolve({ code, killedBy }));
    });
  }

  /** Ends it at once; what it reads from and writes to then ends too. */
  kill(): void {
    this.#isKilled = true;
    this.#child.kill('SIGKILL');
  }

  /**
   * Waits for its end. Undefined when all went well, and when it ended because of us: killed, or nobody read on.
   *
   * @returns `dataLoss` when it did not like the data, `internal` when the program is missing or was killed
   */
  async failure(): Promise<EngineError | undefined> {
    const { code, killedBy, failure } = await this.#ended;
    const message = this.#message.replaceAll(/\s+/g, ' ').trim().slice(0, 200);
    // One that gave up before it could be killed has something to say.
    const endedByUs = this.#isKilled && code === null;
    if (code === 0 || endedByUs || killedBy === 'SIGPIPE' || message.includes('EPIPE')) return undefined;
    if (failure !== undefined) {
      const reason = failure.code === 'ENOENT' ? 'program not found: install it' : failure.message;
      return internal(`${this.#program}: ${reason}`, { cause: failure });
    }
    if (killedBy !== null) return internal(`${this.#program} was killed by ${killedBy}`);
    if (/no space left/i.test(message)) return internal('no space left on device');
    return dataLoss(`invalid or truncated compressed data (${message === '' ? this.#program : message})`);
  }
}
