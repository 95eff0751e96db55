import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { WorkerOptions } from 'node:worker_threads';

/**
 * The file of a worker or helper that lies beside the module at `importMetaUrl`: in a bundle, in `dist`, and, for
 * sources that a test runner loads, in the `dist` that belongs to their `src`.
 */
export function findBeside(name: string, importMetaUrl: string): string {
  const beside = fileURLToPath(new URL(`./${name}.js`, importMetaUrl));
  if (existsSync(beside)) return beside;
  const at = beside.lastIndexOf('/src/');
  const built = at < 0 ? beside : `${beside.slice(0, at)}/dist/${beside.slice(at + '/src/'.length)}`;
  if (existsSync(built)) return built;
  throw new Error(`${name}.js not found beside ${fileURLToPath(importMetaUrl)}: build first`);
}

/**
 * Starts a worker thread from `<name>.js` beside the caller (`import.meta.url`).
 *
 * Descriptors that the worker opens are its own business (`trackUnmanagedFds` off: they travel between threads), and
 * it inherits no command-line options. The caller terminates it.
 */
export function startWorker(name: string, importMetaUrl: string, options: WorkerOptions = {}): Worker {
  return new Worker(findBeside(name, importMetaUrl), { trackUnmanagedFds: false, execArgv: [], name, ...options });
}

/**
 * Makes libuv start its thread pool now. Pool threads inherit root directory and namespaces of the thread that
 * happens to start them, so this must be awaited on the main thread before any worker changes its own.
 */
export async function startThreadPool(): Promise<void> {
  await stat('/');
}
