import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Packages of one Debian suite, whichever release this machine runs. */
export interface DebianPackages {
  readonly suite: 'bookworm' | 'trixie';
  /** All of them: dependencies are not followed. */
  readonly packages: readonly string[];
  /** Patterns of tar for paths to leave out, beside documentation. */
  readonly exclude?: readonly string[];
}

const DOCUMENTATION = ['doc', 'man', 'locale', 'lintian', 'bug'].map((name) => `./usr/share/${name}`);
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/**
 * Unpack packages into a directory. They are not installed: none of their scripts runs.
 *
 * They come from this machine's mirror by an apt configuration in `cacheDirectory`; its own package lists stay as they are.
 */
export function unpackDebianPackages(cacheDirectory: string, wanted: DebianPackages, root: string): void {
  const { suite, packages, exclude = [] } = wanted;
  const state = aptState(cacheDirectory, suite);
  const leaveOut = [...DOCUMENTATION, ...exclude].map((path) => `--exclude=${path}`);
  const script = `set -e
    cd ${state}
    [ -n "$(find updated -mmin -60 2>&-)" ] || { apt-get -qq update && touch updated; }
    rm -rf debs && mkdir debs && cd debs
    apt-get -qq download ${packages.join(' ')}
    for package in *.deb; do dpkg-deb --fsys-tarfile "$package" | tar -xp -C ${root} "$@"; done
    cd .. && rm -r debs`;
  // Test files run side by side.
  execFileSync('flock', [join(state, 'lock'), 'sh', '-c', script, 'sh', ...leaveOut], {
    env: { ...process.env, APT_CONFIG: join(state, 'apt.conf') },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
}

/**
 * As {@link unpackDebianPackages}, into a directory of the cache, once.
 *
 * @param afterwards shell command that runs in it then
 * @returns the directory
 */
export function keptDebianPackages(
  cacheDirectory: string,
  wanted: DebianPackages & { readonly name: string },
  afterwards = 'true',
): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([wanted, afterwards]))
    .digest('hex')
    .slice(0, 8);
  const kept = join(cacheDirectory, `${wanted.name}-${digest}`);
  if (existsSync(kept)) return kept;
  mkdirSync(cacheDirectory, { recursive: true });
  const making = mkdtempSync(`${kept}.`);
  try {
    unpackDebianPackages(cacheDirectory, wanted, making);
    execFileSync('sh', ['-c', afterwards], { cwd: making, stdio: ['ignore', 'ignore', 'pipe'] });
    // Another test file may have been quicker.
    if (!existsSync(kept)) renameSync(making, kept);
  } finally {
    rmSync(making, { recursive: true, force: true });
  }
  return kept;
}

/** @returns directory of an apt that knows one suite; its configuration is `apt.conf` there. */
function aptState(cacheDirectory: string, suite: string): string {
  const state = join(cacheDirectory, `apt-${suite}`);
  mkdirSync(join(state, 'lists/partial'), { recursive: true });
  mkdirSync(join(state, 'archives/partial'), { recursive: true });
  writeFileSync(join(state, 'status'), '');
  writeFileSync(join(state, 'sources.list'), `deb [signed-by=${KEYRING}] ${debianMirror()[0]} ${suite} main\n`);
  const settings = {
    'Dir::State': state,
    'Dir::State::status': join(state, 'status'),
    'Dir::Cache': state,
    'Dir::Etc::SourceList': join(state, 'sources.list'),
    'Dir::Etc::SourceParts': '/dev/null',
    'Acquire::Languages': 'none',
    'APT::Sandbox::User': 'root', // whose directories these are
  };
  const lines = Object.entries(settings).map(([key, value]) => `${key} "${value}";\n`);
  writeFileSync(join(state, 'apt.conf'), lines.join(''));
  return state;
}

/** Mirror and release that this machine's apt uses. */
export function debianMirror(): [site: string, release: string] {
  const out = execFileSync(
    'apt-get',
    ['indextargets', '--format', '$(SITE) $(RELEASE) $(COMPONENT)', 'Created-By: Packages'],
    { encoding: 'utf8' },
  );
  for (const line of out.split('\n')) {
    const [site, release, component] = line.split(' ');
    if (site !== undefined && release !== undefined && component === 'main' && /^[a-z]+$/.test(release))
      return [site, release];
  }
  throw new Error('apt lists no Debian release: run apt-get update');
}
