// `npm test [-- vitest arguments]`: the set-up of `npm start` plus what tests need, then every test. Ends with `N passed, N failed`.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ENGINE_PACKAGES, TEST_PACKAGES, build, checkMachine, ensureDockerCli, root } from './setup.mjs';

checkMachine({ ...ENGINE_PACKAGES, ...TEST_PACKAGES });
ensureDockerCli();
await build();
const run = (program, args) =>
  spawnSync(join(root, 'node_modules/.bin', program), args, { cwd: root, stdio: 'inherit' }).status ?? 1;
// Worker threads of unit and service tests run compiled code.
if (run('tsc', ['-b']) !== 0) process.exit(1);
const report = join(root, '.cache/vitest.json');
mkdirSync(join(root, '.cache'), { recursive: true });
rmSync(report, { force: true });
const status = run('vitest', [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
]);
const { numPassedTests, numFailedTests, numFailedTestSuites, numPendingTests, testResults } = JSON.parse(
  readFileSync(report, 'utf8'),
);
// A file that fails before its first test has no failed test of its own.
const brokenFiles = testResults.filter(
  (file) => file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed'),
).length;
const failed = numFailedTests + brokenFiles;
const skipped = numPendingTests > 0 ? `, ${numPendingTests} skipped` : '';
if (status !== 0 && failed === 0)
  process.stdout.write(`vitest ended with ${status} (${numFailedTestSuites} failed suites)\n`);
process.stdout.write(`${numPassedTests} passed, ${failed} failed${skipped}\n`);
process.exit(status);
