import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { spawnSession } from './spawn.js';

describe('spawnSession', () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'flotilla-spawn-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function run(
    script: string,
    more: readonly (readonly [number, number | undefined])[] = [],
  ): { pid: number; text: () => string } {
    const output = join(directory, 'output');
    const fd = openSync(output, 'w');
    try {
      const pid = spawnSession({
        path: '/bin/sh',
        args: ['-c', `${script}; echo done`],
        env: { NAME: 'a value', PATH: process.env['PATH'] ?? '', LEFT_OUT: undefined },
        cwd: directory,
        descriptors: new Map([[0, undefined], [1, fd], [2, fd], ...more]),
      });
      return { pid, text: () => readFileSync(output, 'utf8') };
    } finally {
      closeSync(fd);
    }
  }

  it('runs a program with its environment, directory and descriptors, and takes its zombie away', async () => {
    const inherited = openSync('/etc/passwd', 'r');
    const list = 'for fd in 0 1 2 3 4 9 10 11 12; do readlink /proc/$$/fd/$fd; done';
    const { pid, text } = run(`echo "$NAME:$LEFT_OUT:$(pwd)"; ${list}; head -c 4 <&9; echo`, [
      [3, undefined],
      [9, inherited],
    ]);
    closeSync(inherited);
    await expect.poll(text, { timeout: 20_000 }).toContain('done');
    const output = join(directory, 'output');
    expect(text().trim().split('\n')).toEqual([
      `a value::${directory}`,
      ...['/dev/null', output, output, '/dev/null', '/etc/passwd'],
      'root',
      'done',
    ]);
    await expect.poll(() => existsSync(`/proc/${pid}`), { timeout: 20_000 }).toBe(false);
  });

  it('gives it a session of its own, with no signal blocked or ignored', async () => {
    const { pid, text } = run('exec cat /proc/self/status /proc/self/stat');
    await expect.poll(text, { timeout: 20_000 }).toContain(`${pid} (cat) `);
    expect(text()).toMatch(/^SigBlk:\t0+$/m);
    // But for the two that glibc keeps for itself.
    const ignored = BigInt(`0x${/^SigIgn:\t([0-9a-f]+)$/m.exec(text())?.[1] ?? 'f'}`);
    expect(ignored & 0x7fffffffn).toBe(0n);
    const fields = text()
      .slice(text().indexOf(`${pid} (cat) `))
      .split(' ');
    expect(fields.slice(4, 6)).toEqual([String(pid), String(pid)]);
  });

  it('says why a program cannot be run, and leaves no descriptor', () => {
    const before = openDescriptors();
    const missing = { args: [], env: {}, descriptors: new Map([[0, undefined]]) };
    expect(() => spawnSession({ ...missing, path: '/no/such/program', cwd: '/' })).toThrow(
      'run /no/such/program: ENOENT',
    );
    expect(() => spawnSession({ ...missing, path: '/bin/true', cwd: '/no/such/directory' })).toThrow(/ENOENT/);
    expect(openDescriptors()).toEqual(before);
  });
});

const openDescriptors = (): string[] => readdirSync('/proc/self/fd').slice(0, -1);
