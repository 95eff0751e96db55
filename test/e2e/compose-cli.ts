import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { compose1, installComposePlugin } from '@flotilla/testkit';
import { runCommand, type CommandResult, type TestEngine } from './test-engine.js';

/** Where what Debian's mirrors gave is kept between runs. */
export const cacheDirectory = join(import.meta.dirname, '../../.cache');

/** One project, as somebody in its directory works with it. */
export interface ComposeProject {
  /** Run compose to its end. */
  run(...args: string[]): Promise<CommandResult>;
  /** As {@link run}, but a non-zero exit throws with what it wrote. @returns stdout without the last newline. */
  ok(...args: string[]): Promise<string>;
  /** Start compose and let it run. */
  follow(...args: string[]): Followed;
}

/** A command that goes on. */
export interface Followed {
  /** What it has written so far, on both outputs. */
  text(): string;
  /** Its exit code, once it has ended. */
  readonly ended: Promise<number | null>;
  /** Interrupt it as Ctrl-C does, and wait for its end. */
  stop(): Promise<void>;
}

export interface ComposeOptions {
  /** Project name: prefix of its containers, networks and volumes. */
  name: string;
  /** Holds the compose file. */
  directory: string;
  env?: NodeJS.ProcessEnv;
}

/** A project of docker compose v2. */
export function composeProject(t: TestEngine, options: ComposeOptions): ComposeProject {
  installComposePlugin(cacheDirectory, `${t.directory}/docker-config`);
  return project(t, 'docker', ['compose', '--ansi', 'never'], options, {});
}

/** A project of docker-compose 1.29. */
export function compose1Project(t: TestEngine, options: ComposeOptions): ComposeProject {
  const { command, args, env } = compose1(cacheDirectory);
  return project(t, command, [...args, '--ansi', 'never'], options, env);
}

function project(
  t: TestEngine,
  command: string,
  first: readonly string[],
  { name, directory, env }: ComposeOptions,
  more: NodeJS.ProcessEnv,
): ComposeProject {
  const environment = {
    ...more,
    DOCKER_HOST: `unix://${t.engine.socket}`,
    DOCKER_CONFIG: `${t.directory}/docker-config`,
    ...env,
  };
  const words = [...first, '--project-directory', directory, '-p', name];
  const run: ComposeProject['run'] = async (...args) => {
    const result = await runCommand(command, [...words, ...args], { env: environment });
    // v2 clears the line before each one of a log, whatever `--ansi` says.
    return { ...result, stdout: result.stdout.replaceAll('\x1b[2K', '') };
  };
  return {
    run,
    follow(...args) {
      const child = spawn(command, [...words, ...args], {
        env: { ...process.env, ...environment },
        stdio: 'pipe',
        detached: true,
      });
      let text = '';
      for (const output of [child.stdout, child.stderr])
        output.on('data', (chunk: Buffer) => (text += chunk.toString()));
      const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
      return {
        text: () => text,
        ended,
        async stop() {
          // A terminal interrupts all of its group: the docker CLI and the plugin that it runs.
          if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGINT');
          await ended;
        },
      };
    },
    async ok(...args) {
      const result = await run(...args);
      if (result.code !== 0)
        throw new Error(`compose ${args.join(' ')}: ${result.code}\n${result.stderr}\n${result.stdout}`);
      return result.stdout.replace(/\n$/, '');
    },
  };
}
