// `npm run bench [-- PART ...] [-- --only WORD] [-- --out FILE]` (parts: start, memory, lifecycle, images, streams, queries, restarts, networks, compose): set up as `npm test` does, bundle bench/main.ts and run it.
import { join } from 'node:path';
import { setUp, run } from './setup.mjs';
import { root } from './sources.mjs';

setUp({ forTests: true, forBench: true });
const { build } = await import('esbuild'); // there only after the set-up
const outfile = join(root, 'dist/bench/main.js');
await build({
  entryPoints: [join(root, 'bench/main.ts')],
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node20',
  conditions: ['source'],
  external: ['koffi', 'leveldown'],
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  outfile,
  logLevel: 'error',
});
run(process.execPath, [outfile, ...process.argv.slice(2)]);
