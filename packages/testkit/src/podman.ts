import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { unmountBelow } from './engine.js';
import type { NetworkNamespace } from './network-namespace.js';

/** Debian's podman with storage of its own: the third engine to compare and to exchange images with. */
export interface PodmanPeer extends AsyncDisposable {
  /** Directory for temporary files; storage lies beside it. */
  readonly directory: string;
  /** What podman needs in its environment, beside the caller's. */
  readonly environment: Readonly<Record<string, string>>;
  /** Command line that runs podman in the namespace, for a shell or a spawn. */
  command(args: readonly string[]): { file: string; argv: string[] };
  /** Run to the end. @returns exit code and what it printed, without the last newline. */
  run(args: readonly string[], input?: string): Promise<{ code: number | null; stdout: string; stderr: string }>;
  /** As {@link run}, but a non-zero exit throws with stderr. @returns stdout. */
  ok(...args: string[]): Promise<string>;
}

/** Nothing is started: podman has no daemon. Disposing unmounts its storage; the caller removes the directory. */
export function makePodman(options: {
  directory: string;
  namespace: NetworkNamespace;
  storageDriver: 'vfs' | 'overlay';
}): PodmanPeer {
  const { directory, namespace } = options;
  mkdirSync(join(directory, 'tmp'), { recursive: true });
  // The machine's own may name a storage that is not ours.
  const storageConf = join(directory, 'storage.conf');
  const places = { driver: options.storageDriver, graphroot: join(directory, 'root'), runroot: join(directory, 'run') };
  const lines = Object.entries(places).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  writeFileSync(storageConf, ['[storage]', ...lines, ''].join('\n'));
  const authFile = join(directory, 'auth.json');
  writeFileSync(authFile, '{}');
  const global = ['--root', join(directory, 'root'), '--runroot', join(directory, 'run')];
  global.push('--tmpdir', join(directory, 'libpod'), '--storage-driver', options.storageDriver);
  global.push('--cgroup-manager', 'cgroupfs', '--events-backend', 'none');
  const environment = {
    // By default in /var/tmp and the user's home.
    TMPDIR: join(directory, 'tmp'),
    REGISTRY_AUTH_FILE: authFile,
    CONTAINERS_STORAGE_CONF: storageConf,
  };
  const command: PodmanPeer['command'] = (args) => {
    const [file, argv] = namespace.command('podman', [...global, ...args]);
    return { file, argv };
  };
  const run: PodmanPeer['run'] = (args, input) =>
    new Promise((resolve, reject) => {
      const { file, argv } = command(args);
      const child = spawn(file, argv, { env: { ...process.env, ...environment }, stdio: ['pipe', 'pipe', 'pipe'] });
      const [stdout, stderr]: [Buffer[], Buffer[]] = [[], []];
      child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
      child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
      child.stdin.on('error', () => undefined); // it may not read its input
      child.stdin.end(input ?? '');
      child.on('error', reject);
      child.on('close', (code) => {
        const [out, err] = [stdout, stderr].map((chunks) => Buffer.concat(chunks).toString().replace(/\n$/, ''));
        resolve({ code, stdout: out ?? '', stderr: err ?? '' });
      });
    });
  return {
    directory,
    environment,
    command,
    run,
    async ok(...args) {
      const { code, stdout, stderr } = await run(args);
      if (code !== 0) throw new Error(`podman ${args.join(' ')}: ${code}\n${stderr}`);
      return stdout;
    },
    [Symbol.asyncDispose]: () => unmountBelow(directory),
  };
}
