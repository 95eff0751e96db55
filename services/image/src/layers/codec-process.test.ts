import { spawnSync } from 'node:child_process';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { compressorCommand } from './codec-process.js';

it('compresses without a time in the header', () => {
  const [program, ...args] = compressorCommand();
  const { stdout } = spawnSync(program, args, { input: 'a layer' });
  expect(gunzipSync(stdout).toString()).toBe('a layer');
  expect(stdout.readUInt32LE(4)).toBe(0);
});
