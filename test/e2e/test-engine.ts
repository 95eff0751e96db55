import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, rmdirSync } from 'node:fs';
import {
  busyboxImage,
  createNetworkNamespace,
  expectNoLeaks,
  snapshotKernelState,
  startEngine,
  startRegistry,
  type EngineUnderTest,
  type FixtureImage,
  type NetworkNamespace,
  type Registry,
} from '@flotilla/testkit';

/** What a finished CLI command left. */
export interface CommandResult {
  code: number | null;
  stdout: string;
  stderr: string;
}

/**
 * An engine as `npm start` runs it, a registry and the stock docker CLI, in a network namespace of the test's own. Its end
 * fails when the engine has left something: processes, mounts, links, rules, namespaces, sockets, translated flows, cgroups.
 */
export interface TestEngine extends AsyncDisposable {
  readonly engine: EngineUnderTest;
  readonly namespace: NetworkNamespace;
  readonly registry: Registry;
  /** Scratch directory on tmpfs, removed at the end. */
  readonly directory: string;
  readonly busybox: FixtureImage;
  /** Run the docker CLI to its end. */
  docker(args: readonly string[], options?: { input?: string | Buffer; signal?: AbortSignal }): Promise<CommandResult>;
  /** As {@link docker}, but a non-zero exit throws with stderr. @returns stdout without the last newline. */
  ok(...args: string[]): Promise<string>;
}

/** Run a command to its end, collecting its output. */
export function runCommand(
  command: string,
  args: readonly string[],
  options: { input?: string | Buffer; env?: NodeJS.ProcessEnv; signal?: AbortSignal } = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, [...args], {
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(options.signal ? { signal: options.signal } : {}),
    });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
    child.stdin.on('error', () => undefined); // the command may not read its input
    child.stdin.end(options.input ?? '');
    child.on('error', reject);
    child.on('close', (code) =>
      resolve({ code, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }),
    );
  });
}

export interface TestEngineOptions {
  /** False: the registry has busybox, the engine does not. */
  pull?: boolean;
  /** More flags for the engine. */
  args?: string[];
  daemonJson?: Record<string, unknown>;
  /** Files of the machine that the engine sees otherwise. */
  files?: Readonly<Record<string, string>>;
  /** Run on the empty scratch directory before anything starts; the engine's own will be `engine` in it. */
  prepare?: (directory: string) => void;
  /** Name of a file in the scratch directory that is the machine's boot id to the engine. */
  bootIdFile?: string;
}

/** Start everything; `busybox:latest` is pushed to the registry and, unless `pull` is false, pulled and tagged. */
export async function startTestEngine(options: TestEngineOptions = {}): Promise<TestEngine> {
  const directory = mkdtempSync('/dev/shm/flotilla-e2e-');
  options.prepare?.(directory);
  const namespace = createNetworkNamespace();
  const busybox = busyboxImage(directory);
  const registry = await startRegistry({ directory: `${directory}/registry`, port: 5000, namespace });
  await registry.push(busybox, 'busybox', 'latest');
  const takeAway = async (): Promise<void> => {
    await registry[Symbol.asyncDispose]();
    namespace[Symbol.dispose]();
    rmSync(directory, { recursive: true, force: true });
    removeCgroups(namespace.name);
  };
  const kernel = await snapshotKernelState({
    roots: [`${directory}/engine`],
    netns: namespace.name,
    cgroupParent: namespace.name,
  });
  const engine = await startEngine({
    directory: `${directory}/engine`,
    namespace,
    // Cgroups of its own: what it leaves can be told from what other engines have.
    args: ['--cgroup-parent', `/${namespace.name}`, ...(options.args ?? [])],
    ...(options.daemonJson ? { daemonJson: options.daemonJson } : {}),
    ...(options.bootIdFile === undefined ? {} : { bootIdFile: `${directory}/${options.bootIdFile}` }),
    ...(options.files ? { files: options.files } : {}),
  }).catch(async (error: unknown) => {
    await takeAway();
    throw error;
  });
  const env = { DOCKER_HOST: `unix://${engine.socket}`, DOCKER_CONFIG: `${directory}/docker-config` };
  const docker: TestEngine['docker'] = (args, more = {}) => runCommand('docker', args, { env, ...more });
  const ok: TestEngine['ok'] = async (...args) => {
    const result = await docker(args);
    if (result.code !== 0)
      throw new Error(`docker ${args.join(' ')}: ${result.code}\n${result.stderr}\n${result.stdout}`);
    return result.stdout.replace(/\n$/, '');
  };
  if (options.pull !== false) {
    await ok('pull', '-q', `${registry.address}/busybox:latest`);
    await ok('tag', `${registry.address}/busybox:latest`, 'busybox:latest');
  }
  return {
    engine,
    namespace,
    registry,
    directory,
    busybox,
    docker,
    ok,
    async [Symbol.asyncDispose]() {
      try {
        const listed = await docker(['ps', '-aq']);
        const ids = listed.stdout.split('\n').filter(Boolean);
        if (ids.length > 0) await docker(['rm', '-fv', ...ids]);
        await engine.stop();
        // An engine that a test has ended could not clean up.
        if (listed.code === 0) await expectNoLeaks(kernel);
      } finally {
        await engine[Symbol.asyncDispose]();
        await takeAway();
      }
    },
  };
}

/** The parent that the engine's containers had; it is empty now. */
function removeCgroups(parent: string): void {
  const roots = ['/sys/fs/cgroup', ...readdirSync('/sys/fs/cgroup').map((name) => `/sys/fs/cgroup/${name}`)];
  for (const path of roots.map((root) => `${root}/${parent}`)) if (existsSync(path)) rmdirSync(path);
}
