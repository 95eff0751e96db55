// `npm run bench [-- --only WORD] [-- --out FILE]`: set up as `npm test` does, bundle bench/main.ts and run it.
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ENGINE_PACKAGES, TEST_PACKAGES, build as buildEngine, checkMachine } from './setup.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const outfile = join(root, 'dist/bundle/bench.js');
checkMachine({ ...ENGINE_PACKAGES, ...TEST_PACKAGES });
await buildEngine();
const { build } = await import('esbuild'); // there only after npm ci
await build({
  entryPoints: [join(root, 'bench/main.ts')],
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  conditions: ['source'],
  external: ['koffi', 'leveldown'],
  banner: { js: "import { createRequire as __cr } from 'node:module'; const require = __cr(import.meta.url);" },
  outfile,
  logLevel: 'error',
});
process.exit(
  spawnSync(process.execPath, [outfile, ...process.argv.slice(2)], { cwd: root, stdio: 'inherit' }).status ?? 1,
);
