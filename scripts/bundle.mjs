// Bundle every process of the engine into one file each: dist/bundle/<service>.js, flotilla.js (the launcher), worker
// threads beside them, and the descriptor set that gRPC reflection reads.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { bundleDir as target, root, sourceStamp, stampFile } from './sources.mjs';

const version = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;

// A service holds little: small young generations keep a burst of requests from growing the process for good, and its
// heap is collected sooner than helper threads are woken (measured: a third of the CPU time of bulk streams, 1 MiB each).
const serviceFlags = ['--max-semi-space-size=8', '--single-threaded-gc'];

/** Folder name of each service that has a process, and its file. */
function entryPoints() {
  const entries = { flotilla: join(root, 'cli/src/main.ts') };
  for (const service of readdirSync(join(root, 'services'))) {
    const main = join(root, 'services', service, 'src/main.ts');
    if (existsSync(main)) entries[service] = main;
  }
  const workspaces = ['services', 'packages'].flatMap((room) =>
    readdirSync(join(root, room)).map((name) => join(room, name)),
  );
  for (const workspace of [...workspaces, 'cli']) {
    const src = join(root, workspace, 'src');
    if (!existsSync(src)) continue;
    for (const file of readdirSync(src, { recursive: true })) {
      if (!file.endsWith('-worker.ts')) continue;
      const worker = basename(file, '.ts');
      if (entries[worker] !== undefined) throw new Error(`two files are called ${worker}.ts`);
      entries[worker] = join(src, file);
    }
  }
  return entries;
}

const options = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  conditions: ['source'],
  // Of leveldown only what finds its native code stays outside, see below. grpc-js would load the last one only for
  // channelz, which nothing here asks for.
  external: ['koffi', 'leveldown/binding.js', '@grpc/proto-loader'],
  // Names stay as they are: stack traces and logs show them.
  minifySyntax: true,
  minifyWhitespace: true,
  sourcemap: 'linked',
  legalComments: 'none',
  define: {
    FLOTILLA_VERSION: JSON.stringify(version),
    FLOTILLA_NODE_FLAGS: JSON.stringify(serviceFlags),
    'import.meta.url': '__moduleUrl',
  },
  logLevel: 'warning',
  plugins: [
    {
      name: 'leveldown-binding',
      setup({ onResolve }) {
        onResolve({ filter: /^\.\/binding$/ }, ({ importer }) =>
          importer.includes('/leveldown/') ? { path: 'leveldown/binding.js', external: true } : undefined,
        );
      },
    },
  ],
};

const moduleUrl = "const __moduleUrl = require('node:url').pathToFileURL(__filename).href;";

/**
 * Write these entry points into `outdir`: worker threads as modules, whatever is a process as `<name>.cjs` with
 * `<name>.js`, which runs that with V8's code cache.
 */
async function buildInto(outdir, entries) {
  const names = Object.keys(entries);
  const choose = (wanted) => Object.fromEntries(names.filter(wanted).map((name) => [name, entries[name]]));
  const isWorker = (name) => name.endsWith('-worker');
  await build({ ...options, entryPoints: choose(isWorker), outdir, banner: { js: moduleUrl } });
  await build({
    ...options,
    entryPoints: choose((name) => !isWorker(name)),
    outdir,
    outExtension: { '.js': '.cjs' },
    banner: { js: `(function (exports, require, module, __filename, __dirname) {${moduleUrl}` },
    footer: { js: '})' },
  });
  copyFileSync(join(root, 'scripts/load-bundle.cjs'), join(outdir, 'load-bundle.cjs'));
  for (const name of names) if (!isWorker(name)) writeLoader(outdir, name);
}

/** Write `<name>.js`, and the code cache of a run that ends at once because nothing is given to do. */
function writeLoader(outdir, name) {
  for (const file of readdirSync(outdir)) {
    if (file.startsWith(`${name}-`) && file.endsWith('.cache')) rmSync(join(outdir, file));
  }
  const hash = createHash('sha256')
    .update(readFileSync(join(outdir, `${name}.cjs`)))
    .digest('hex')
    .slice(0, 16);
  const run = (options) => `require('./load-bundle.cjs').run('${name}', '${hash}'${options});\n`;
  writeFileSync(join(outdir, `${name}.js`), run(''));
  const flags = name === 'flotilla' ? [] : serviceFlags;
  spawnSync(process.execPath, [...flags, '--eval', run(', { writeCache: true }')], { cwd: outdir, stdio: 'ignore' });
}

/** Make dist/bundle; it is put in place whole. */
async function bundle() {
  const stamp = sourceStamp();
  mkdirSync(join(root, 'dist'), { recursive: true });
  const fresh = mkdtempSync(join(root, 'dist/.bundle-'));
  try {
    await buildInto(fresh, entryPoints());
    execFileSync(join(root, 'node_modules/.bin/buf'), ['build', '--output', join(fresh, 'flotilla.binpb')], {
      cwd: join(root, 'proto'),
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    writeFileSync(join(fresh, 'package.json'), '{"type":"commonjs"}\n');
    writeFileSync(join(fresh, 'stamp'), stamp);
    const old = `${fresh}.old`;
    if (existsSync(target)) renameSync(target, old);
    renameSync(fresh, target);
    rmSync(old, { recursive: true, force: true });
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    throw error;
  }
}

/** Remake only these files of a bundle that is there, for work on one service. */
async function rebundle(names) {
  const entries = entryPoints();
  rmSync(stampFile, { force: true });
  await buildInto(target, Object.fromEntries(names.map((name) => [name, entries[name]])));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const names = process.argv.slice(2);
  await (names.length === 0 ? bundle() : rebundle(names));
}
