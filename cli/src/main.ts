import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseDaemonFlags, readDaemonSettings, serviceFiles, serviceNames } from '@flotilla/config';
import { invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import { createLogger } from '@flotilla/log';
import { examineMachine } from './doctor.js';
import { startEngine } from './launcher.js';

declare const FLOTILLA_VERSION: string | undefined;
const version = typeof FLOTILLA_VERSION === 'string' ? FLOTILLA_VERSION : '0.0.0';
const bundleDir = dirname(fileURLToPath(import.meta.url));

const usage = `Usage: flotilla COMMAND

  up [flags]            start the engine in the foreground (dockerd's flags; --validate only checks them;
                        --isolate-mounts gives each service a mount namespace of its own)
  status [--json]       show the processes of the engine (--exec-root DIR, default /run/flotilla)
  doctor                list what this machine lacks
  doctor images         check the image store of a running engine: every blob, layer and record (--repair mends what
                        can be mended, --idle counts temporary files too, --json, --exec-root DIR)
  service NAME          run one service alone (--config FILE); names: ${serviceNames.join(', ')}
  version               print the version
`;

/** @returns the exit code. */
async function main([command, ...rest]: readonly string[]): Promise<number> {
  switch (command) {
    case 'up':
      return await up(rest);
    case 'status':
      return await status(rest);
    case 'doctor':
      return await doctor(rest);
    case 'service':
      return runOneService(rest);
    case 'version':
    case '--version':
      console.log(version);
      return 0;
    case undefined:
    case 'help':
    case '--help':
    case '-h':
      console.log(usage);
      return 0;
    default:
      throw invalidArgument(`unknown command "${command}"; see flotilla help`);
  }
}

async function up(argv: readonly string[]): Promise<number> {
  const isolateMounts = argv.includes('--isolate-mounts');
  const flags = parseDaemonFlags(argv.filter((argument) => argument !== '--isolate-mounts'));
  const settings = readDaemonSettings(flags);
  if (flags.validateOnly) {
    serviceFiles(settings, { version, engineId: '', nats: null });
    console.log('configuration OK');
    return 0;
  }
  const log = createLogger({ service: 'launcher', ...settings.log });
  const stop = new AbortController();
  // A second signal (npm and a terminal both send one) must not cut the orderly stop short.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop.abort(signal));
  process.on('uncaughtException', (err) => {
    log.fatal({ err }, 'uncaught error');
    process.exit(1);
  });
  const engine = await startEngine({ settings, version, bundleDir, log, isolateMounts });
  process.on('SIGHUP', () => {
    log.info('reloading the configuration');
    Promise.resolve()
      .then(() => engine.reload(readDaemonSettings(flags)))
      .then(
        () => log.info('configuration reloaded'),
        (error: unknown) => log.error({ reason: messageOf(error) }, 'configuration not reloaded, nothing has changed'),
      );
  });
  engine.ready.then(
    () => {
      const host = settings.hosts[0] ?? '';
      console.log(`Flotilla ${version} listens on ${host}\nTry: docker -H ${host} run --rm -it busybox sh`);
      log.info({ hosts: settings.hosts }, 'engine is ready');
    },
    () => undefined,
  );
  if (!stop.signal.aborted) await once(stop.signal, 'abort');
  log.info({ why: String(stop.signal.reason) }, 'engine stops');
  await engine[Symbol.asyncDispose]();
  log.info('engine stopped');
  return 0;
}

async function status(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: { json: { type: 'boolean' }, 'exec-root': { type: 'string' } },
  });
  const execRoot = values['exec-root'] ?? '/run/flotilla';
  // With it comes gRPC, which `up` does not need at its start.
  const { engineStatus, engineWarnings, renderStatus } = await import('./status.js');
  const found = await engineStatus(execRoot);
  if (found === undefined) {
    console.error(`no engine runs with exec root ${execRoot}`);
    return 3;
  }
  console.log(values.json === true ? JSON.stringify(found.services, undefined, 2) : renderStatus(found.services));
  for (const warning of await engineWarnings(found.services)) console.error(`WARNING: ${warning}`);
  return found.services.every(({ health }) => health === 'SERVING') ? 0 : 1;
}

async function doctor([subject, ...rest]: readonly string[]): Promise<number> {
  if (subject === 'images') return doctorImages(rest);
  if (subject !== undefined)
    throw invalidArgument(`there is nothing to examine called "${subject}"; see flotilla help`);
  const findings = examineMachine();
  for (const { what, isFine, remedy } of findings) {
    console.log(isFine ? `ok       ${what}` : `MISSING  ${what}: ${remedy}`);
  }
  return findings.every(({ isFine }) => isFine) ? 0 : 1;
}

async function doctorImages(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      json: { type: 'boolean' },
      repair: { type: 'boolean' },
      idle: { type: 'boolean' },
      'exec-root': { type: 'string' },
    },
  });
  const execRoot = values['exec-root'] ?? '/run/flotilla';
  const { examineImages } = await import('./doctor-images.js');
  const options = { repair: values.repair === true, idle: values.idle === true, json: values.json === true };
  return examineImages(execRoot, options, (line) => console.log(line));
}

function runOneService([name = '', ...rest]: readonly string[]): number {
  const program = join(bundleDir, `${name}.js`);
  if (!serviceNames.some((each) => each === name) || !existsSync(program)) {
    throw invalidArgument(`there is no service "${name}"; names: ${serviceNames.join(', ')}`);
  }
  process.argv = [process.execPath, program, ...rest];
  createRequire(import.meta.url)(program);
  return Number(process.exitCode ?? 0);
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    // A sentence for what the user can mend, everything for what we must.
    console.error(
      `flotilla: ${isEngineError(error) || !(error instanceof Error) ? messageOf(error) : (error.stack ?? error.message)}`,
    );
    process.exitCode = 1;
  },
);
