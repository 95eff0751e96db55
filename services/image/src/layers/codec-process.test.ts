import { spawnSync } from 'node:child_process';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { compressorCommand } from './codec-process.js';

it('compresses without a time in the header', () => {
  // From a pipe, as layers come: of a socket igzip knows no time.
  const { stdout } = spawnSync('sh', ['-c', 'printf "a layer" | "$@"', 'sh', ...compressorCommand()]);
  expect(gunzipSync(stdout).toString()).toBe('a layer');
  expect(stdout.readUInt32LE(4)).toBe(0);
});
