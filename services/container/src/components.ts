import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { config } from '@flotilla/proto';

const run = promisify(execFile);

/** Programs that containers run by, for `docker version`. One that cannot be asked is left out. */
export async function readComponents(runtimePath: string, initPath: string): Promise<config.Component[]> {
  const asked = await Promise.all([
    ask('containerd-shim', '/usr/bin/containerd-shim-runc-v2', ['-v'], {
      version: /Version:\s*(\S+)/,
      GitCommit: /Revision:\s*(\S+)/,
    }),
    ask('runc', runtimePath, ['--version'], { version: /version (\S+)/, GitCommit: /commit: (\S+)/ }),
    ask('docker-init', initPath, ['--version'], { version: /version (\S+)/, GitCommit: /git\.(\S+)/ }),
  ]);
  return asked.flat();
}

async function ask(
  name: string,
  program: string,
  args: string[],
  patterns: { version: RegExp; GitCommit: RegExp },
): Promise<config.Component[]> {
  try {
    const { stdout } = await run(program, args, { timeout: 5000 });
    const version = patterns.version.exec(stdout)?.[1] ?? '';
    const commit = patterns.GitCommit.exec(stdout)?.[1];
    return [{ name, version, details: commit === undefined ? {} : { GitCommit: commit } }];
  } catch {
    return [];
  }
}
