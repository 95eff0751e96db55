// What `npm start`, `npm test` and `npm run bench` need before anything else: the right Node, Debian packages, npm packages from the
// lock file, generated stubs and bundles. Plain JavaScript with nothing but Node, because it runs before `npm ci`.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Debian packages of the engine, each with a file that shows it is there. */
export const ENGINE_PACKAGES = {
  containerd: '/usr/bin/containerd-shim-runc-v2',
  runc: '/usr/sbin/runc',
  'nats-server': '/usr/sbin/nats-server',
  nftables: '/usr/sbin/nft',
  iproute2: '/usr/bin/ip',
  isal: '/usr/bin/igzip',
  zstd: '/usr/bin/zstd',
  pigz: '/usr/bin/pigz',
  tini: '/usr/bin/tini-static',
  'ca-certificates': '/etc/ssl/certs/ca-certificates.crt',
  'golang-github-containers-common': '/usr/share/containers/seccomp.json',
};

/** Packages that only tests need. */
export const TEST_PACKAGES = {
  'docker-registry': '/usr/bin/docker-registry',
  'busybox-static': '/bin/busybox',
  debootstrap: '/usr/sbin/debootstrap',
  skopeo: '/usr/bin/skopeo',
  curl: '/usr/bin/curl',
  'util-linux': '/usr/bin/nsenter',
  procps: '/usr/bin/pgrep',
};

const say = (text) => process.stderr.write(`flotilla: ${text}\n`);
const fail = (text) => {
  say(text);
  process.exit(1);
};

function onPath(program) {
  return (process.env.PATH ?? '')
    .split(':')
    .some((directory) => directory !== '' && existsSync(join(directory, program)));
}

/** End with one sentence where the engine cannot run. */
export function checkMachine(packages) {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) fail(`Node >= 20.19 is needed, this is ${process.versions.node}`);
  if (process.platform !== 'linux' || process.getuid() !== 0) fail('it runs on Linux as root');
  const missing = missingPackages(packages);
  if (missing.length === 0) return;
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  const debian = /^ID=debian$/m.test(release) && /^VERSION_ID="?1[23]"?$/m.test(release);
  if (!debian) fail(`this is not Debian 12 or 13: please install ${missing.join(', ')} and start again`);
  install(missing);
}

function missingPackages(packages) {
  return Object.entries(packages)
    .filter(([, file]) => !existsSync(file))
    .map(([name]) => name);
}

function install(names) {
  say(`installing Debian packages: ${names.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const apt = (args) => spawnSync('apt-get', args, { stdio: ['ignore', 'ignore', 'inherit'], env }).status === 0;
  const command = ['install', '-y', '-qq', '--no-install-recommends', ...names];
  if (apt(['update', '-qq']) && apt(command)) return;
  fail(`apt-get could not install ${names.join(' ')}`);
}

/** A docker CLI for the tests when the machine has none. */
export function ensureDockerCli() {
  if (onPath('docker')) return;
  say('unpacking the docker CLI of Debian (docker.io; its daemon is not installed)');
  const directory = join(root, '.cache/docker-cli');
  mkdirSync(directory, { recursive: true });
  execFileSync('apt-get', ['download', 'docker.io'], { cwd: directory, stdio: ['ignore', 'ignore', 'inherit'] });
  const archive = readdirSync(directory).find((name) => name.endsWith('.deb'));
  execFileSync('dpkg-deb', ['-x', join(directory, archive), directory]);
  process.env.PATH = `${process.env.PATH}:${join(directory, 'usr/bin')}`;
}

function hashOf(paths) {
  const hash = createHash('sha256');
  const visit = (path) => {
    if (!existsSync(path)) return;
    if (statSync(path).isDirectory()) {
      for (const name of readdirSync(path).sort()) {
        if (!['node_modules', 'dist', 'generated', '.cache'].includes(name)) visit(join(path, name));
      }
      return;
    }
    hash.update(path).update(readFileSync(path));
  };
  for (const path of paths) visit(join(root, path));
  return hash.digest('hex');
}

/** Run a step unless its inputs are those of its last run. */
function unlessUnchanged(name, inputs, outputs, step) {
  const stamp = join(root, '.cache', `${name}.stamp`);
  const now = hashOf(inputs);
  const fresh =
    existsSync(stamp) && readFileSync(stamp, 'utf8') === now && outputs.every((path) => existsSync(join(root, path)));
  if (fresh) return;
  step();
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, now);
}

const node = (script) =>
  execFileSync(process.execPath, [join(root, 'scripts', script)], { cwd: root, stdio: 'inherit' });

/** npm packages, stubs, bundles: each only when stale. */
export async function build() {
  unlessUnchanged('npm', ['package-lock.json'], ['node_modules/esbuild'], () => {
    say('installing npm packages from the lock file');
    const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (status !== 0) fail('npm ci failed');
  });
  unlessUnchanged(
    'generate',
    ['proto', 'scripts/generate.mjs', 'package-lock.json'],
    ['packages/proto/src/generated'],
    () => node('generate.mjs'),
  );
  const { bundle, isBundled } = await import('./bundle.mjs'); // needs esbuild: not before npm ci
  if (!isBundled()) await bundle();
}
