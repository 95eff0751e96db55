import { once } from 'node:events';
import { Socket } from 'node:net';
import { parseArgs } from 'node:util';
import { readServiceConfig } from '@flotilla/config';
import type { ServiceConfig, ServiceName } from '@flotilla/config';
import { invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import { createLogger } from '@flotilla/log';
import type { Logger } from '@flotilla/log';

const stopLimitMs = 10_000;
// Without a launcher nobody restarts or kills this process: the next engine waits for its data directory.
const orphanStopLimitMs = 5000;

/**
 * The life of a service's process: `node <service>.js --config FILE [--parent-fd N]`.
 *
 * Starts the service, waits for SIGTERM, SIGINT or the end of the launcher's pipe (descriptor N), disposes it and lets
 * the event loop empty; after a grace period the process exits anyway. A failed start, and any error that nobody
 * caught, is logged and exits 1.
 */
export async function runService<N extends ServiceName>(
  service: N,
  start: (config: ServiceConfig<N>) => Promise<AsyncDisposable>,
): Promise<void> {
  const startedAt = performance.now();
  const { config, parentFd } = readArguments(service);
  const log = createLogger({ service, ...config.log });
  const die = (err: unknown, message: string) => {
    log.fatal({ err }, message);
    process.exit(1);
  };
  process.on('uncaughtException', (err) => die(err, 'uncaught error'));
  process.on('unhandledRejection', (err) => die(err, 'unhandled rejection'));

  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => stop.abort({ why: `got ${signal}`, limitMs: stopLimitMs }));
  }
  const parent = parentFd === undefined ? undefined : watchParent(parentFd, stop);

  let running: AsyncDisposable;
  try {
    running = await start(config);
  } catch (err) {
    if (isEngineError(err) && err.kind !== 'internal') {
      log.fatal({ reason: err.message }, 'start failed');
      process.exit(1);
    }
    return die(err, 'start failed');
  }
  parent?.write('serving\n');
  log.info({ pid: process.pid, tookMs: Math.round(performance.now() - startedAt) }, 'service started');

  if (!stop.signal.aborted) await once(stop.signal, 'abort');
  const { why, limitMs } = stop.signal.reason as { why: string; limitMs: number };
  log.info({ why }, 'service stops');
  setTimeout(() => {
    log.error({ limitMs }, 'service did not stop in time');
    process.exit(1);
  }, limitMs).unref();
  try {
    await running[Symbol.asyncDispose]();
  } catch (err) {
    die(err, 'stop failed');
  }
  parent?.destroy();
  exitSoon(log);
}

function readArguments<N extends ServiceName>(service: N): { config: ServiceConfig<N>; parentFd: number | undefined } {
  try {
    const { values } = parseArgs({ options: { config: { type: 'string' }, 'parent-fd': { type: 'string' } } });
    if (values.config === undefined) throw invalidArgument('--config FILE is missing');
    const parentFd = values['parent-fd'];
    if (parentFd !== undefined && !/^\d+$/.test(parentFd)) throw invalidArgument(`invalid --parent-fd ${parentFd}`);
    return {
      config: readServiceConfig(service, values.config),
      parentFd: parentFd === undefined ? undefined : Number(parentFd),
    };
  } catch (error) {
    // There is no logger before the configuration.
    process.stderr.write(`${service}: ${messageOf(error)}\n`);
    process.exit(1);
  }
}

/** The launcher keeps the other end open as long as it lives, and is told there that the service serves. */
function watchParent(fd: number, stop: AbortController): Socket {
  const socket = new Socket({ fd, readable: true, writable: true });
  const gone = () => stop.abort({ why: 'the launcher is gone', limitMs: orphanStopLimitMs });
  socket.once('close', gone);
  socket.on('error', () => undefined);
  socket.resume();
  return socket;
}

/** Nothing should be left to do; what is left is named and not waited for. */
function exitSoon(log: Logger): void {
  setTimeout(() => {
    log.warn({ resources: process.getActiveResourcesInfo() }, 'left open after stop');
    process.exit(0);
  }, 1000).unref();
}
