import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ContainerConfig } from '@flotilla/config';

const program = fileURLToPath(new URL('../dist/main.js', import.meta.url));

/** The service as a process of its own, which a test can kill; started again by itself, as the launcher does. */
export class ServiceProcess {
  readonly #configPath: string;
  #child: ChildProcess;
  #restarts = true;

  constructor(config: ContainerConfig) {
    this.#configPath = join(config.execRoot, 'container.json');
    const log = { level: process.env['TEST_LOG_LEVEL'] === 'debug' ? 'debug' : 'warn', format: 'text' };
    writeFileSync(this.#configPath, JSON.stringify({ ...config, log }), { mode: 0o600 });
    this.#child = this.#start();
  }

  /** kill -9; a new process follows. */
  async kill(): Promise<void> {
    const child = this.#child;
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  }

  /** kill -9, and nothing follows before `start`. */
  async killForGood(): Promise<void> {
    this.#restarts = false;
    await this.kill();
  }

  start(): void {
    this.#restarts = true;
    this.#child = this.#start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#restarts = false;
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    await exited;
  }

  #start(): ChildProcess {
    const child = spawn(process.execPath, [program, '--config', this.#configPath], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    child.once('exit', () => {
      if (this.#restarts && this.#child === child) this.#child = this.#start();
    });
    return child;
  }
}
