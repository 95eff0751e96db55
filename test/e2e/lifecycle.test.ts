import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { waitFor } from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('container lifecycle', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
  });
  const inspect = (name: string, format: string) => t.ok('inspect', '-f', format, name);

  it('creates, starts, stops, starts again and removes', async () => {
    const id = await t.ok(
      'create',
      '--name',
      'cc',
      'busybox',
      'sh',
      '-c',
      'trap "exit 5" TERM; while :; do sleep 0.1; done',
    );
    expect(await inspect('cc', '{{.State.Status}} {{.Id}}')).toBe(`created ${id}`);
    await t.ok('start', 'cc');
    expect(await inspect('cc', '{{.State.Status}}')).toBe('running');
    expect(await t.ok('start', 'cc')).toBe('cc');
    await t.ok('stop', 'cc');
    expect(await inspect('cc', '{{.State.Status}} {{.State.ExitCode}}')).toBe('exited 5');
    await t.ok('start', 'cc');
    const busy = await t.docker(['rm', 'cc']);
    expect(busy.code).toBe(1);
    expect(busy.stderr).toContain('cannot remove container "');
    await t.ok('rm', '-f', 'cc');
    const gone = await t.docker(['inspect', 'cc']);
    expect(gone.stderr).toMatch(/no such object: cc/i);
  });

  it('kills after the timeout and reports 137', async () => {
    await t.ok('run', '-d', '--name', 'cc', 'busybox', 'sh', '-c', 'trap "" TERM; while :; do sleep 0.1; done');
    await t.ok('stop', '-t', '1', 'cc');
    expect(await inspect('cc', '{{.State.ExitCode}}')).toBe('137');
  });

  it('sends named and numbered signals', async () => {
    await t.ok(
      'run',
      '-d',
      '--name',
      'cc',
      'busybox',
      'sh',
      '-c',
      'trap "echo got-usr1" USR1; trap "exit 9" HUP; echo ready; while :; do sleep 0.05; done',
    );
    await waitFor(async () => (await t.ok('logs', 'cc')).includes('ready'), { what: 'the traps' });
    await t.ok('kill', '-s', 'SIGUSR1', 'cc');
    await waitFor(async () => (await t.ok('logs', 'cc')).includes('got-usr1'), { what: 'the signal' });
    await t.ok('kill', '-s', '1', 'cc');
    expect(await t.ok('wait', 'cc')).toBe('9');
    const late = await t.docker(['kill', 'cc']);
    expect(late.stderr).toContain('is not running');
    const bad = await t.docker(['kill', '-s', 'NONSENSE', 'cc']);
    expect(bad.stderr).toContain('invalid signal: NONSENSE');
  });

  it('restarts with a new process and keeps the writable layer', async () => {
    await t.ok(
      'run',
      '-d',
      '--name',
      'cc',
      '--stop-timeout',
      '0',
      'busybox',
      'sh',
      '-c',
      'echo start >> /log; sleep 600',
    );
    const before = await inspect('cc', '{{.State.Pid}}');
    await t.ok('restart', 'cc');
    expect(await inspect('cc', '{{.State.Pid}}')).not.toBe(before);
    await t.ok('kill', 'cc');
    await t.ok('create', '--name', 'other', 'busybox');
    expect((await t.ok('ps', '-a', '--format', '{{.Names}}')).split('\n').sort()).toEqual(['cc', 'other']);
  });

  it('applies restart policies', async () => {
    await t.ok('run', '-d', '--name', 'cc', '--restart', 'on-failure:2', 'busybox', 'sh', '-c', 'exit 7');
    await waitFor(
      async () => (await inspect('cc', '{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}')) === 'exited 2 7',
      { what: 'two restarts', timeoutMs: 30_000 },
    );
  });

  it('waits, also for removal', async () => {
    await t.ok('run', '-d', '--rm', '--name', 'cc', 'busybox', 'sh', '-c', 'sleep 1; exit 4');
    expect(await t.ok('wait', 'cc')).toBe('4');
    await waitFor(async () => (await t.ok('ps', '-aq')) === '', { what: 'removal' });
  });

  it('renames and refuses names in use', async () => {
    await t.ok('create', '--name', 'one', 'busybox');
    await t.ok('create', '--name', 'two', 'busybox');
    const id = await inspect('two', '{{.Id}}');
    const clash = await t.docker(['rename', 'one', 'two']);
    expect(clash.stderr).toContain(`Conflict. The container name "/two" is already in use by container "${id}"`);
    await t.ok('rename', 'one', 'three');
    expect(await inspect('three', '{{.Name}}')).toBe('/three');
    const again = await t.docker(['create', '--name', 'two', 'busybox']);
    expect(again.stderr).toContain('You have to remove (or rename) that container to be able to reuse that name.');
    const bad = await t.docker(['create', '--name', '-x', 'busybox']);
    expect(bad.stderr).toContain('Invalid container name (-x), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed');
  });

  it('finds by name, full id and prefix', async () => {
    const id = await t.ok('create', '--name', 'cc', 'busybox');
    for (const name of ['cc', id, id.slice(0, 12), id.slice(0, 4)]) expect(await inspect(name, '{{.Id}}')).toBe(id);
  });

  it('filters lists', async () => {
    await t.ok('create', '--name', 'aa', '--label', 'role=web', '--label', 'x', 'busybox');
    await t.ok('run', '--name', 'bb', '--label', 'role=db', 'busybox', 'sh', '-c', 'exit 3').catch(() => undefined);
    await t.ok('run', '-d', '--name', 'rr', '-v', 'data:/d', '-p', '127.0.0.1::80', 'busybox', 'sleep', '600');
    const ps = async (...filters: string[]) =>
      (await t.ok('ps', '-a', '--format', '{{.Names}}', ...filters.flatMap((f) => ['-f', f])))
        .split('\n')
        .filter(Boolean)
        .sort();
    expect(await ps('name=aa')).toEqual(['aa']);
    expect(await ps('label=role')).toEqual(['aa', 'bb']);
    expect(await ps('label=role=db')).toEqual(['bb']);
    expect(await ps('status=exited')).toEqual(['bb']);
    expect(await ps('status=running')).toEqual(['rr']);
    expect(await ps('exited=3')).toEqual(['bb']);
    expect(await ps('ancestor=busybox')).toEqual(['aa', 'bb', 'rr']);
    expect(await ps('before=bb')).toEqual(['aa']);
    expect(await ps('since=bb')).toEqual(['rr']);
    expect(await ps('volume=data')).toEqual(['rr']);
    expect(await ps('network=bridge')).toEqual(['aa', 'bb', 'rr']);
    expect(await ps('expose=80')).toEqual(['rr']);
    expect(await t.ok('ps', '-n', '2', '--format', '{{.Names}}')).toBe('rr\nbb');
    const bad = await t.docker(['ps', '-f', 'nonsense=1']);
    expect(bad.stderr).toContain('invalid filter');
    await t.ok('rm', '-f', 'rr');
    await t.ok('volume', 'rm', 'data');
  });

  it('reads logs: tail, timestamps, since, until, follow', async () => {
    await t.ok('run', '--name', 'cc', 'busybox', 'sh', '-c', 'for i in 1 2 3 4 5; do echo line $i; done; echo bad >&2');
    const all = await t.docker(['logs', 'cc']);
    expect(all).toMatchObject({ stdout: 'line 1\nline 2\nline 3\nline 4\nline 5\n', stderr: 'bad\n' });
    // Two pipes have no order between them: the tail of one stream is looked at.
    await t.ok('run', '--name', 'tailed', 'busybox', 'sh', '-c', 'for i in 1 2 3 4 5; do echo line $i; done');
    expect((await t.docker(['logs', '--tail', '2', 'tailed'])).stdout).toBe('line 4\nline 5\n');
    const stamped = (await t.docker(['logs', '-t', 'cc'])).stdout.split('\n')[0] ?? '';
    expect(stamped).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 1$/);
    expect((await t.docker(['logs', '--since', '2099-01-01T00:00:00Z', 'cc'])).stdout).toBe('');
    expect((await t.docker(['logs', '--until', '2001-01-01T00:00:00Z', 'cc'])).stdout).toBe('');
    await t.ok('run', '-d', '--name', 'ff', 'busybox', 'sh', '-c', 'for i in 1 2 3; do echo f$i; sleep 0.2; done');
    expect((await t.docker(['logs', '-f', 'ff'])).stdout).toBe('f1\nf2\nf3\n');
  });

  it('attaches to a running container and forwards stdin', async () => {
    await t.ok('run', '-d', '-i', '--name', 'cc', 'busybox', 'sh', '-c', 'read x; echo got $x; sleep 1; exit 6');
    const result = await t.docker(['attach', 'cc'], { input: 'word\n' });
    expect(result).toMatchObject({ code: 6, stdout: 'got word\n' });
  });

  it('shows processes that outlive the client', async () => {
    const child = spawn('docker', ['run', '--name', 'cc', 'busybox', 'sleep', '600'], {
      env: { ...process.env, DOCKER_HOST: `unix://${t.engine.socket}` },
      stdio: 'ignore',
    });
    await waitFor(async () => (await t.ok('ps', '-q', '-f', 'name=cc')) !== '', { what: 'the container' });
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    expect(await inspect('cc', '{{.State.Running}}')).toBe('true');
  });

  it('tells its events in order', async () => {
    const since = String(Math.floor(Date.now() / 1000) - 1);
    await t.ok('run', '--rm', '--name', 'ev', 'busybox', 'true');
    await waitFor(async () => (await t.ok('ps', '-aq')) === '', { what: 'removal' });
    const until = String(Math.ceil(Date.now() / 1000) + 1);
    const events = await t.ok(
      'events',
      '--since',
      since,
      '--until',
      until,
      '-f',
      'container=ev',
      '--format',
      '{{.Type}} {{.Action}}',
    );
    expect(events.split('\n')).toEqual(
      ['container create', 'container attach', 'container start', 'container die', 'container destroy'].filter((e) =>
        events.includes(e),
      ),
    );
    for (const action of ['create', 'start', 'die', 'destroy'])
      expect(events.split('\n').filter((e) => e === `container ${action}`)).toHaveLength(1);
  });
});
