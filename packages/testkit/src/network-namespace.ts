import { execFileSync, spawn, type ChildProcess, type SpawnOptions } from 'node:child_process';
import { randomBytes } from 'node:crypto';

/** A network namespace with loopback up, for an engine under test, its registry and its clients. */
export interface NetworkNamespace extends Disposable {
  readonly name: string;
  /** Command line that runs `command` inside. Only the network namespace changes (`ip netns exec` would hide cgroups). */
  command(command: string, args: readonly string[]): [string, string[]];
  spawn(command: string, args: readonly string[], options?: SpawnOptions): ChildProcess;
  /** Run to the end; throws with stderr on a non-zero exit. @returns stdout. */
  run(command: string, args: readonly string[]): string;
}

/** Make a namespace `flt-<random>`. Dispose after everything in it has ended. */
export function createNetworkNamespace(): NetworkNamespace {
  const name = `flt-${randomBytes(4).toString('hex')}`;
  execFileSync('ip', ['netns', 'add', name]);
  const command = (cmd: string, args: readonly string[]): [string, string[]] => [
    'nsenter',
    [`--net=/run/netns/${name}`, '--', cmd, ...args],
  ];
  const namespace: NetworkNamespace = {
    name,
    command,
    spawn(cmd, args, options = {}) {
      const [file, argv] = command(cmd, args);
      return spawn(file, argv, options);
    },
    run(cmd, args) {
      const [file, argv] = command(cmd, args);
      return execFileSync(file, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], maxBuffer: 64 << 20 });
    },
    [Symbol.dispose]() {
      execFileSync('ip', ['netns', 'delete', name]);
    },
  };
  namespace.run('ip', ['link', 'set', 'lo', 'up']);
  return namespace;
}
