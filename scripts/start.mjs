// npm start: set up, then become the launcher (`flotilla up`) in this very process, so that signals reach it.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { setUp } from './setup.mjs';
import { bundleDir } from './sources.mjs';

setUp({ forTests: false });
const program = join(bundleDir, 'flotilla.js');
process.argv = [process.execPath, program, 'up', ...process.argv.slice(2)];
await import(pathToFileURL(program).href);
