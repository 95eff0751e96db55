import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { identify } from './process-identity.js';
import type { ProcessIdentity } from './process-identity.js';

/** What a kept process runs, asked for anew at each start. */
export interface Command {
  readonly file: string;
  readonly args: readonly string[];
  readonly env?: NodeJS.ProcessEnv;
}

export interface KeptProcessOptions {
  readonly name: string;
  readonly log: Logger;
  readonly command: () => Command | Promise<Command>;
  /** Called after each start and each end. */
  readonly onChange: () => void;
  /** Called when the process writes on the pipe that ends with the launcher: it serves. */
  readonly onServing?: () => void;
  /** Gets standard error; passed through to the launcher's own when absent. */
  readonly onStderr?: (stream: NodeJS.ReadableStream) => void;
}

const firstBackoffMs = 100;
const lastBackoffMs = 10_000;
// One that has served did not fail at its start: whoever ended it, requests are waiting for it.
const lastBackoffServedMs = 400;
// Whoever has run this long has not failed at its start.
const steadyMs = 10_000;
const killAfterMs = 12_000;

/**
 * A child process that is started again whenever it ends: at once the first time, then after a growing pause (a short one
 * if it has served).
 *
 * Its descriptor 3 is a pipe that ends with the launcher, and on which it may say that it serves. It leads a session of its own, so that Ctrl-C in a terminal
 * reaches the launcher only.
 */
export class KeptProcess {
  readonly #options: KeptProcessOptions;
  #child: ChildProcess | undefined;
  #identity: ProcessIdentity | undefined;
  #restarts = 0;
  #failures = 0;
  #hasServed = false;
  #isStopping = false;
  #ended: Promise<void> = Promise.resolve();
  readonly #stop = new AbortController();

  constructor(options: KeptProcessOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.name;
  }

  get identity(): ProcessIdentity | undefined {
    return this.#identity;
  }

  get restarts(): number {
    return this.#restarts;
  }

  start(): void {
    if (this.#isStopping) return;
    this.#ended = this.#keepRunning();
  }

  /** Kill it now; it is started again. */
  kill(): void {
    this.#child?.kill('SIGKILL');
  }

  /** SIGTERM, wait, SIGKILL. Resolves when it has ended for good. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#stop.abort();
    this.#child?.kill('SIGTERM');
    const timer = setTimeout(() => {
      this.#options.log.error({ process: this.name }, 'process did not stop, killing it');
      this.#child?.kill('SIGKILL');
    }, killAfterMs);
    await this.#ended;
    clearTimeout(timer);
  }

  async #keepRunning(): Promise<void> {
    const { log, name } = this.#options;
    while (!this.#isStopping) {
      const startedAt = performance.now();
      const outcome = await this.#runOnce();
      if (this.#stop.signal.aborted) return;
      if (performance.now() - startedAt > steadyMs) this.#failures = 0;
      this.#failures += 1;
      this.#restarts += 1;
      const last = this.#hasServed ? lastBackoffServedMs : lastBackoffMs;
      const pauseMs = this.#failures === 1 ? 0 : Math.min(firstBackoffMs * 2 ** (this.#failures - 2), last);
      log.warn({ process: name, outcome, pauseMs }, 'process ended, starting it again');
      try {
        await delay(pauseMs, undefined, { signal: this.#stop.signal });
      } catch {
        return;
      }
    }
  }

  /** @returns how it ended. */
  async #runOnce(): Promise<string> {
    const { command, onChange, onServing, onStderr } = this.#options;
    let child: ChildProcess;
    try {
      const { file, args, env } = await command();
      child = spawn(file, args, {
        stdio: ['ignore', 2, onStderr === undefined ? 'inherit' : 'pipe', 'pipe'],
        detached: true,
        ...(env === undefined ? {} : { env }),
      });
      await once(child, 'spawn');
    } catch (error) {
      return messageOf(error);
    }
    this.#child = child;
    this.#identity = child.pid === undefined ? undefined : identify(child.pid);
    child.stdio[3]?.on('error', () => undefined);
    this.#hasServed = false;
    child.stdio[3]?.once('data', () => {
      this.#hasServed = true;
      onServing?.();
    });
    if (child.stderr !== null) onStderr?.(child.stderr);
    const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
    if (this.#isStopping) child.kill('SIGTERM');
    onChange();
    const [code, signal] = await ended;
    this.#child = undefined;
    this.#identity = undefined;
    child.stdio[3]?.destroy();
    onChange();
    return signal ?? `exit ${code ?? '?'}`;
  }
}
