// `npm start [-- options of flotilla up]`: install what is missing, build what is stale, run the engine in the foreground.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ENGINE_PACKAGES, build, checkMachine, root } from './setup.mjs';

checkMachine(ENGINE_PACKAGES);
await build();
const launcher = spawn(process.execPath, [join(root, 'dist/bundle/flotilla.js'), 'up', ...process.argv.slice(2)], {
  stdio: 'inherit',
});
// npm and the terminal signal the whole group or only this process: the launcher must hear of it in both cases, and once is enough for it.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => launcher.kill(signal));
launcher.on('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
