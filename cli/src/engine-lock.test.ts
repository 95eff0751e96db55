import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { lockDirectory } from './engine-lock.js';
import { identify } from './process-identity.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'flotilla-lock-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe('lockDirectory', () => {
  it('admits one launcher and is released', () => {
    const lock = lockDirectory(dir);
    expect(() => lockDirectory(dir)).toThrow(`another engine uses ${dir} (launcher with pid ${process.pid})`);
    lock[Symbol.dispose]();
    expect(readdirSync(dir)).toEqual([]);
    lockDirectory(dir)[Symbol.dispose]();
  });

  it.each([
    ['a dead process', JSON.stringify({ pid: 2 ** 22 - 1, startTime: '1', bootId: 'x' })],
    ['a process that took the number of a dead one', JSON.stringify({ ...identify(process.pid), startTime: '1' })],
    ['another boot', JSON.stringify({ ...identify(process.pid), bootId: 'before' })],
    ['a crash while it was written', '{"pid":'],
  ])('takes over the lock of %s', (_what, content) => {
    writeFileSync(join(dir, 'launcher.lock'), content);
    lockDirectory(dir)[Symbol.dispose]();
    expect(readdirSync(dir)).toEqual([]);
  });
});
