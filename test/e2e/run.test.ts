import { writeFileSync, mkdirSync, existsSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('docker run', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const run = (...args: string[]) => t.docker(['run', '--rm', ...args]);

  it('pulls a missing image and runs it', async () => {
    const result = await run(`${t.registry.address}/busybox:latest`, 'echo', 'hello');
    expect(result).toMatchObject({ code: 0, stdout: 'hello\n' });
  });

  it.each([
    [0, ['true']],
    [1, ['false']],
    [3, ['sh', '-c', 'exit 3']],
    [137, ['sh', '-c', 'kill -9 $$']],
    [143, ['sh', '-c', 'kill -15 $$; sleep 5']],
    [127, ['nope']],
    [127, ['/nope/nope']],
    [126, ['/etc']],
    [126, ['/etc/passwd']],
  ])('exits with %i for %j', async (code, command) => {
    // PID 1 gets no default action for SIGTERM: an init makes the shell an ordinary process.
    const result = await run('--init', 'busybox', ...command);
    expect(result.code).toBe(code === 127 || code === 126 ? code : code);
  });

  it.each([
    [127, ['nope'], 'exec: "nope": executable file not found in $PATH'],
    [127, ['/no/such'], 'no such file or directory'],
    [126, ['/etc/passwd'], 'permission denied'],
  ])('exits with %i for %j without an init and says why', async (code, command, phrase) => {
    const result = await run('busybox', ...command);
    expect(result.code).toBe(code);
    expect(result.stderr).toContain(phrase);
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('exits with 125 when the engine refuses', async () => {
    const result = await run('-v', 'relative/../path:/x', 'busybox', 'true');
    expect(result.code).toBe(125);
    expect((await run(`${t.registry.address}/absent`, 'true')).code).toBe(125);
  });

  it('separates stdout and stderr', async () => {
    const result = await run('busybox', 'sh', '-c', 'echo out; echo err >&2');
    expect(result).toMatchObject({ code: 0, stdout: 'out\n', stderr: 'err\n' });
  });

  it('passes stdin and its end', async () => {
    const input = 'some text\n'.repeat(50_000);
    const result = await t.docker(['run', '--rm', '-i', 'busybox', 'cat'], { input });
    expect(result.stdout.length).toBe(input.length);
    expect(result.stdout).toBe(input);
  });

  it('gives a terminal with -t', async () => {
    const result = await run('-t', 'busybox', 'sh', '-c', 'test -t 1 && echo terminal');
    expect(result.stdout).toBe('terminal\r\n');
  });

  it('sets environment, user, directory, hostname and entrypoint', async () => {
    const result = await run(
      ...['-e', 'A=1', '-u', 'web:staff', '-w', '/var/made', '-h', 'ship', '--entrypoint', 'sh', 'busybox'],
      ...['-c', 'echo $A $(id -un):$(id -gn) $(pwd) $(hostname)'],
    );
    expect(result.stdout).toBe('1 web:staff /var/made ship\n');
  });

  it('refuses an unknown user', async () => {
    const result = await run('-u', 'ghost', 'busybox', 'true');
    expect(result.code).toBe(125);
    expect(result.stderr).toContain('unable to find user ghost: no matching entries in passwd file');
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('applies limits', async () => {
    const result = await run(
      ...['-m', '64m', '--cpus', '0.5', '--pids-limit', '50', '--ulimit', 'nofile=512:1024', 'busybox', 'sh', '-c'],
      'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; ulimit -n; ulimit -Hn',
    );
    expect(result.stdout.trim().split('\n')).toEqual(['67108864', '50', '512', '1024']);
  });

  it('mounts read-only roots, tmpfs, binds and anonymous volumes', async () => {
    const source = `${t.directory}/bind`;
    mkdirSync(source);
    writeFileSync(`${source}/in`, 'from outside');
    const result = await run(
      ...[
        '--read-only',
        '--tmpfs',
        '/scratch:size=1m',
        '-v',
        `${source}:/bind`,
        '-v',
        '/anonymous',
        'busybox',
        'sh',
        '-c',
      ],
      'touch /no 2>/dev/null || echo read-only; touch /scratch/a /anonymous/b && cat /bind/in && echo written > /bind/out; grep -c " /scratch tmpfs" /proc/mounts',
    );
    expect(result.stderr).toBe('');
    expect(result.stdout).toBe('read-only\nfrom outside1\n');
    expect(readFileSync(`${source}/out`, 'utf8')).toBe('written\n');
    expect(await t.ok('volume', 'ls', '-q')).toBe('');
  });

  it('confines a default container', async () => {
    const result = await run(
      ...['busybox', 'sh', '-c'],
      'grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null || echo no-userns; mount -t tmpfs x /tmp 2>/dev/null || echo no-mount; cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; touch /proc/sysrq-trigger 2>/dev/null || echo ro-sysrq',
    );
    expect(result.stdout).toBe('CapEff:\t00000000a80425fb\nSeccomp:\t2\nno-userns\nno-mount\n0\nro-sysrq\n');
  });

  it('lifts confinement with --privileged and adjusts capabilities', async () => {
    expect(
      (await run('--privileged', 'busybox', 'sh', '-c', 'mount -t tmpfs x /tmp && grep Seccomp: /proc/self/status'))
        .stdout,
    ).toBe('Seccomp:\t0\n');
    expect(
      (await run('--cap-drop', 'ALL', '--cap-add', 'CHOWN', 'busybox', 'grep', 'CapEff', '/proc/self/status')).stdout,
    ).toBe('CapEff:\t0000000000000001\n');
    expect((await run('--cap-add', 'NONSENSE', 'busybox', 'true')).code).toBe(125);
  });

  it('fills in hosts and resolv.conf', async () => {
    const result = await run(
      '--add-host',
      'db:10.1.2.3',
      '--dns',
      '10.9.9.9',
      '--dns-search',
      'example.test',
      '-h',
      'me',
      'busybox',
      'cat',
      '/etc/hosts',
      '/etc/resolv.conf',
      '/etc/hostname',
    );
    expect(result.stdout).toMatch(/^127\.0\.0\.1\tlocalhost$/m);
    expect(result.stdout).toMatch(/^10\.1\.2\.3\tdb$/m);
    expect(result.stdout).toMatch(/\tme$/m);
    expect(result.stdout).toMatch(/^nameserver 10\.9\.9\.9$/m);
    expect(result.stdout).toMatch(/^search example\.test$/m);
    expect(result.stdout).toMatch(/^me$/m);
  });

  it('runs an init that reaps', async () => {
    expect((await run('--init', 'busybox', 'sh', '-c', 'ps -o pid,comm | grep " 1 "')).stdout).toMatch(
      /docker-init|tini/,
    );
  });

  it('removes the container with --rm, also one that fails to start', async () => {
    await run('--name', 'gone', 'busybox', 'true');
    await run('--name', 'gone', 'busybox', 'nope');
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('gives each of many clients at once its own output, all of it', async () => {
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, i) => run('busybox', 'sh', '-c', `echo out ${i}; echo err ${i} >&2; exit ${i}`)),
    );
    expect(results).toEqual(
      Array.from({ length: 20 }, (_, i) => ({ code: i, stdout: `out ${i}\n`, stderr: `err ${i}\n` })),
    );
  });

  it('gives an attached client every run of a container that is started again and again', async () => {
    await t.ok('create', '--name', 'repeated', 'busybox', 'sh', '-c', 'echo out; echo err >&2');
    for (let i = 0; i < 10; i++) {
      expect(await t.docker(['start', '-a', 'repeated'])).toEqual({ code: 0, stdout: 'out\n', stderr: 'err\n' });
    }
    await t.ok('rm', 'repeated');
  });

  it('writes a cidfile and runs detached', async () => {
    const cidfile = `${t.directory}/cid`;
    const id = await t.ok('run', '-d', '--cidfile', cidfile, '--name', 'detached', 'busybox', 'sleep', '600');
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    expect(existsSync(cidfile) && readFileSync(cidfile, 'utf8')).toBe(id);
    expect(await t.ok('ps', '--format', '{{.Names}} {{.State}} {{.Image}}')).toBe('detached running busybox');
    await t.ok('rm', '-f', 'detached');
  });
});
