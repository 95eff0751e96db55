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
  return project(t, command, [...args, '--no-ansi'], options, env);
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
  const run: ComposeProject['run'] = (...args) =>
    runCommand(command, [...first, '--project-directory', directory, '-p', name, ...args], { env: environment });
  return {
    run,
    async ok(...args) {
      const result = await run(...args);
      if (result.code !== 0)
        throw new Error(`compose ${args.join(' ')}: ${result.code}\n${result.stderr}\n${result.stdout}`);
      return result.stdout.replace(/\n$/, '');
    },
  };
}
