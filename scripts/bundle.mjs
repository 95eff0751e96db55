// Bundle the launcher, each service and each worker thread into one file under dist/bundle/, and build the descriptor set for reflection.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const outdir = join(root, 'dist/bundle');

function filesBelow(directory) {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
}

const entryPoints = {};
const add = (name, file) => {
  if (entryPoints[name] !== undefined)
    throw new Error(`two entry points are called ${name}: ${entryPoints[name]} and ${file}`);
  entryPoints[name] = file;
};
for (const service of readdirSync(join(root, 'services'))) {
  const main = join(root, 'services', service, 'src/main.ts');
  if (existsSync(main)) add(service, main);
}
if (existsSync(join(root, 'cli/src/main.ts'))) add('flotilla', join(root, 'cli/src/main.ts'));
for (const area of ['services', 'packages']) {
  for (const workspace of readdirSync(join(root, area))) {
    for (const file of filesBelow(join(root, area, workspace, 'src'))) {
      if (/-(worker|process)\.ts$/.test(file) && !file.includes('/generated/')) add(basename(file, '.ts'), file);
    }
  }
}

rmSync(outdir, { recursive: true, force: true });
mkdirSync(outdir, { recursive: true });
await build({
  entryPoints,
  outdir,
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  conditions: ['source'],
  external: ['koffi', 'leveldown'],
  // CommonJS dependencies inside an ESM bundle call require for Node's own modules.
  banner: {
    js: "import { createRequire as createBundleRequire } from 'node:module';\nconst require = createBundleRequire(import.meta.url);",
  },
  minifySyntax: true,
  legalComments: 'none',
  logLevel: 'warning',
});
execFileSync(
  join(root, 'node_modules/.bin/buf'),
  ['build', join(root, 'proto'), '-o', join(outdir, 'flotilla.binpb')],
  { stdio: 'inherit' },
);
