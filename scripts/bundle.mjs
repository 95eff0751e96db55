// Bundle every process of the engine into one file each: dist/bundle/<service>.js, flotilla.js (the launcher), worker
// threads beside them, and the descriptor set that gRPC reflection reads.
import { execFileSync } from 'node:child_process';
import {
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
  format: 'esm',
  conditions: ['source'],
  // The first two are native; grpc-js would load the third only for channelz, which nothing here asks for.
  external: ['koffi', 'leveldown', '@grpc/proto-loader'],
  minify: true,
  keepNames: true,
  sourcemap: 'linked',
  legalComments: 'none',
  define: { FLOTILLA_VERSION: JSON.stringify(version) },
  // CommonJS dependencies inside an ES module still call require for Node's own modules.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  logLevel: 'warning',
};

/** Make dist/bundle; it is put in place whole. */
async function bundle() {
  const stamp = sourceStamp();
  mkdirSync(join(root, 'dist'), { recursive: true });
  const fresh = mkdtempSync(join(root, 'dist/.bundle-'));
  try {
    await build({ ...options, entryPoints: entryPoints(), outdir: fresh });
    execFileSync(join(root, 'node_modules/.bin/buf'), ['build', '--output', join(fresh, 'flotilla.binpb')], {
      cwd: join(root, 'proto'),
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    writeFileSync(join(fresh, 'package.json'), '{"type":"module"}\n');
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
  const chosen = Object.fromEntries(names.map((name) => [name, entries[name]]));
  await build({ ...options, entryPoints: chosen, outdir: target });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const names = process.argv.slice(2);
  await (names.length === 0 ? bundle() : rebundle(names));
}
