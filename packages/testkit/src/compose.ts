import { mkdirSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { keptDebianPackages } from './debian-packages.js';

/**
 * Make docker compose v2 a plugin of the docker CLI, for those who set `DOCKER_CONFIG` to `configDirectory`.
 *
 * Debian 13 has it; the one library it needs is a C library not older than Debian 12's. @returns path of the program.
 */
export function installComposePlugin(cacheDirectory: string, configDirectory: string): string {
  const root = keptDebianPackages(cacheDirectory, {
    name: 'docker-compose',
    suite: 'trixie',
    packages: ['docker-compose'],
  });
  const program = join(root, 'usr/libexec/docker/cli-plugins/docker-compose');
  const plugins = join(configDirectory, 'cli-plugins');
  mkdirSync(plugins, { recursive: true });
  rmSync(join(plugins, 'docker-compose'), { force: true });
  symlinkSync(program, join(plugins, 'docker-compose'));
  return program;
}

/** How to run a program: arguments of its caller follow `args`. */
export interface ProgramInvocation {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

const PYTHON = ['python3.11-minimal', 'libpython3.11-minimal', 'libpython3.11-stdlib'];
const LIBRARIES = ['libexpat1', 'libffi8', 'libssl3', 'libyaml-0-2', 'zlib1g'];
const MODULES = [
  ...['attr', 'cached-property', 'certifi', 'chardet', 'charset-normalizer', 'distro', 'distutils', 'docker'],
  ...['dockerpty', 'docopt', 'dotenv', 'idna', 'jsonschema', 'lib2to3', 'pkg-resources', 'pyrsistent', 'requests'],
  ...['six', 'texttable', 'urllib3', 'websocket', 'yaml'],
];

/** docker-compose 1.29 as Debian 12 has it, with its Python. */
export function compose1(cacheDirectory: string): ProgramInvocation {
  const root = keptDebianPackages(cacheDirectory, {
    name: 'compose-1',
    suite: 'bookworm',
    packages: ['docker-compose', ...PYTHON, ...LIBRARIES, ...MODULES.map((name) => `python3-${name}`)],
  });
  return {
    command: join(root, 'usr/bin/python3.11'),
    args: ['-m', 'compose'],
    env: {
      ...pythonEnvironment(root),
      // It keeps the compiled form of its hundreds of modules, whatever the caller's Python is told.
      PYTHONDONTWRITEBYTECODE: '',
      COMPOSE_INTERACTIVE_NO_CLI: '1',
    },
  };
}

const pythonEnvironment = (root: string): Record<string, string> => {
  const libraries = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
  return {
    PYTHONHOME: `${root}/usr`,
    PYTHONPATH: `${root}/usr/lib/python3/dist-packages`,
    LD_LIBRARY_PATH: `${root}/usr/lib/${libraries}:${root}/lib/${libraries}`,
  };
};
