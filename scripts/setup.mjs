// What `npm start` and `npm test` do before anything else: check the machine, install what is missing, build.
import { execFileSync, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { isBundled, isGenerated, isInstalled, root } from './sources.mjs';

// Debian package -> a program or file by which it is recognised.
const enginePackages = {
  containerd: 'containerd-shim-runc-v2',
  runc: 'runc',
  'nats-server': 'nats-server',
  nftables: 'nft',
  isal: 'igzip',
  zstd: 'zstd',
  pigz: 'pigz',
  tini: 'tini-static',
  'ca-certificates': '/etc/ssl/certs/ca-certificates.crt',
  'golang-github-containers-common': '/usr/share/containers/seccomp.json',
  iproute2: 'ip',
};
const testPackages = {
  'docker-registry': 'docker-registry',
  'busybox-static': 'busybox',
  debootstrap: 'debootstrap',
  skopeo: 'skopeo',
  podman: 'podman',
  e2fsprogs: 'mkfs.ext4',
  curl: 'curl',
};
const benchPackages = { dnsperf: 'dnsperf', iperf3: 'iperf3' };

/** Stop with one sentence: what is wrong is not ours to mend. */
export function refuse(sentence) {
  console.error(`flotilla: ${sentence}`);
  process.exit(1);
}

/** Check Node, user and distribution, install Debian and npm packages, generate and bundle what is stale. */
export function setUp({ forTests, forBench = false }) {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19))
    refuse(`Node.js 20.19 or newer is needed, this is ${process.versions.node}.`);
  if (process.platform !== 'linux') refuse('the engine runs on Linux only.');
  if (process.getuid() !== 0) refuse('the engine needs root; run this command as root.');
  installDebianPackages({
    ...enginePackages,
    ...(forTests ? testPackages : {}),
    ...(forBench ? benchPackages : {}),
  });
  if (forTests) provideDockerCli();
  if (!isInstalled()) {
    console.log('Installing npm packages from package-lock.json');
    run('npm', ['ci', '--no-audit', '--no-fund']);
  }
  if (!isGenerated()) run(process.execPath, [join(root, 'scripts/generate.mjs')]);
  if (!isBundled()) {
    console.log('Building the engine');
    run(process.execPath, [join(root, 'scripts/bundle.mjs')]);
  }
}

export function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit', ...options });
  if (error !== undefined) refuse(`${command} cannot be run: ${error.message}`);
  if (status !== 0) refuse(`${[command, ...args].join(' ')} failed with exit code ${status}.`);
}

function installDebianPackages(packages) {
  const missing = Object.keys(packages).filter((name) => !isPresent(packages[name]));
  if (missing.length === 0) return;
  if (!isSupportedDebian()) {
    refuse(
      `this is not Debian 12 or 13, so nothing was installed; install what provides ` +
        `${missing.map((name) => `${name} (${packages[name]})`).join(', ')} and try again.`,
    );
  }
  console.log(`Installing Debian packages: ${missing.join(' ')}`);
  aptInstall(missing);
}

function aptInstall(packages) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = ['install', '-y', '--no-install-recommends', ...packages];
  const options = { stdio: ['ignore', 'ignore', 'inherit'], env };
  // The package lists of a new machine are empty or old.
  if (spawnSync('apt-get', ['-qq', ...install], { ...options, stdio: 'ignore' }).status === 0) return;
  run('apt-get', ['-qq', 'update'], options);
  run('apt-get', ['-qq', ...install], options);
}

function isSupportedDebian() {
  if (!existsSync('/etc/os-release')) return false;
  const text = readFileSync('/etc/os-release', 'utf8');
  return /^ID="?debian"?$/m.test(text) && /^VERSION_ID="?1[23]"?$/m.test(text);
}

function isPresent(fileOrProgram) {
  if (fileOrProgram.startsWith('/')) return existsSync(fileOrProgram);
  const path = [...(process.env.PATH ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'];
  return path.some((dir) => {
    try {
      accessSync(join(dir, fileOrProgram), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** A docker CLI for the tests: the one on PATH, else Debian's, unpacked aside so that no dockerd comes with it. */
function provideDockerCli() {
  if (isPresent('docker')) return;
  const cache = join(root, '.cache/docker-cli');
  const bin = join(cache, 'usr/bin');
  if (!existsSync(join(bin, 'docker'))) {
    console.log('Fetching the docker CLI from Debian (docker-cli, or docker.io on Debian 12)');
    mkdirSync(cache, { recursive: true });
    const download = (name) =>
      spawnSync('apt-get', ['-qq', 'download', name], { cwd: cache, stdio: 'ignore' }).status === 0;
    if (!download('docker-cli') && !download('docker.io')) {
      run('apt-get', ['-qq', 'update'], { stdio: ['ignore', 'ignore', 'inherit'] });
      if (!download('docker-cli') && !download('docker.io')) refuse('no docker CLI can be fetched from Debian.');
    }
    for (const name of readdirSync(cache).filter((each) => each.endsWith('.deb'))) {
      execFileSync('dpkg-deb', ['-x', join(cache, name), cache]);
    }
    if (!existsSync(join(bin, 'docker'))) refuse('the package fetched from Debian holds no docker CLI.');
  }
  process.env.PATH = `${bin}${delimiter}${process.env.PATH}`;
}
