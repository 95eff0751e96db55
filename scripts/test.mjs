// npm test: set up, compile, and run every test. Arguments go to vitest (`npm test -- --project unit packages/store`).
// Ends with the plain line `N passed, N failed`.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setUp } from './setup.mjs';
import { root } from './sources.mjs';

setUp({ forTests: true });

function finish(passed, failed) {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 && passed > 0 ? 0 : 1);
}

const bin = (name) => join(root, 'node_modules/.bin', name);
const step = (command, args) => spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status === 0;

// Worker threads and helper programs of the packages run compiled.
if (!step(bin('tsc'), ['-b'])) {
  console.error('The sources do not compile.');
  finish(0, 1);
}

const report = join(root, '.cache/test-report.json');
mkdirSync(join(root, '.cache'), { recursive: true });
rmSync(report, { force: true });
const isSuccess = step(bin('vitest'), [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
]);
if (!existsSync(report)) finish(0, 1);
const { numPassedTests, numFailedTests, testResults } = JSON.parse(readFileSync(report, 'utf8'));
// A file that cannot even be loaded, or whose set-up fails, has no failed test to count.
const brokenFiles = testResults.filter(
  ({ status, assertionResults }) => status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
).length;
const failed = numFailedTests + brokenFiles;
finish(numPassedTests, isSuccess ? failed : Math.max(failed, 1));
