import { spawn } from 'node:child_process';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint } from './footprint.js';
import { killProcess } from './kill-process.js';
import { rawRequest } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('exec', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
    await t.ok(
      'run',
      ...['-d', '--name', 'box', '-e', 'COLOUR=blue', '-w', '/tmp', '-h', 'box', '--group-add', '77'],
      ...['--ulimit', 'core=-1', 'busybox', 'sleep', '1000'],
    );
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const send = (method: string, path: string, body?: object) =>
    rawRequest(t.engine.socket, method, `/v1.51${path}`, body);
  const create = async (config: object, name = 'box'): Promise<string> => {
    const answer = await send('POST', `/containers/${name}/exec`, config);
    expect(answer.status, answer.body).toBe(201);
    return (answer.json as { Id: string }).Id;
  };
  const inspect = async (id: string) =>
    (await send('GET', `/exec/${id}/json`)).json as { Running: boolean; ExitCode: number | null; Pid: number };

  it('runs programs with the streams, the environment and the exit code of docker exec', async () => {
    const footprint = await takeFootprint(t);
    expect(await t.ok('exec', 'box', 'sh', '-c', 'echo $COLOUR $HOSTNAME $(pwd); id -u')).toBe('blue box /tmp\n0');
    const both = await t.docker(['exec', 'box', 'sh', '-c', 'echo out; echo err >&2; exit 7']);
    expect(both).toEqual({ code: 7, stdout: 'out\n', stderr: 'err\n' });
    expect((await t.docker(['exec', '-i', 'box', 'cat'], { input: 'typed' })).stdout).toBe('typed');
    const large = await t.docker(['exec', '-i', 'box', 'wc', '-c'], { input: Buffer.alloc(3_000_000, 'x') });
    expect(large.stdout).toBe('3000000\n');
    expect(
      await t.ok('exec', '-e', 'COLOUR=red', '-e', 'NEW=1', '-w', '/', 'box', 'sh', '-c', 'echo $COLOUR $NEW $PWD'),
    ).toBe('red 1 /');
    expect(await t.ok('exec', 'box', 'sh', '-c', 'ulimit -c')).toBe('unlimited');
    await footprint.expectUnchanged();
  });

  it('users by name and number, and privileges', async () => {
    expect(await t.ok('exec', '-u', 'nobody', 'box', 'id', '-un')).toBe('nobody');
    expect(await t.ok('exec', '-u', '1234:56', 'box', 'id', '-G')).toBe('56 77');
    const unknown = await t.docker(['exec', '-u', 'ghost', 'box', 'true']);
    expect(unknown.code).toBe(126);
    expect(unknown.stdout).toContain('unable to find user ghost: no matching entries in passwd file');
    const capabilities = (args: string[]) => t.ok('exec', ...args, 'box', 'grep', 'CapEff', '/proc/self/status');
    expect(await capabilities([])).toMatch(/00000000a80425fb$/);
    expect(await capabilities(['-u', 'nobody'])).toMatch(/0000000000000000$/);
    expect(await capabilities(['--privileged'])).toMatch(/[0-9a-f]*ff$/);
  });

  it.each([
    ['nosuchprogram', 127, /exec: "nosuchprogram": executable file not found in \$PATH/],
    ['/etc', 126, /exec: "\/etc": (permission denied|is a directory)/],
  ])('a program that cannot be run: %s', async (program, code, message) => {
    const result = await t.docker(['exec', 'box', program]);
    expect(result.code).toBe(code);
    expect(result.stdout + result.stderr).toMatch(message);
    const id = await create({ Cmd: [program] });
    const answer = await send('POST', `/exec/${id}/start`, { Detach: true });
    expect([answer.status, (answer.json as { message: string }).message]).toEqual([
      400,
      expect.stringMatching(message),
    ]);
    expect(await inspect(id)).toMatchObject({ Running: false, ExitCode: code });
  });

  it('a working directory that is not there', async () => {
    const result = await t.docker(['exec', '-w', '/nowhere', 'box', 'true']);
    expect(result.code).toBe(127);
    expect(result.stdout).toMatch(/chdir to cwd \("\/nowhere"\).*: no such file or directory/);
    const id = await create({ Cmd: ['true'], WorkingDir: '/nowhere' });
    const answer = await send('POST', `/exec/${id}/start`, { Detach: true });
    expect(answer.status).toBe(400);
    expect(await inspect(id)).toMatchObject({ Running: false, ExitCode: 127 });
  });

  it('a terminal has its size and is resized', async () => {
    const id = await create({
      Cmd: ['sh', '-c', 'stty size; while [ ! -e /tmp/resized ]; do sleep 0.05; done; stty size'],
      Tty: true,
      AttachStdin: true,
      AttachStdout: true,
    });
    const child = spawn('curl', [
      ...['-sN', '--unix-socket', t.engine.socket, '-X', 'POST', '-H', 'content-type: application/json'],
      ...['-d', '{"Tty":true,"ConsoleSize":[33,44]}', `http://d/v1.51/exec/${id}/start`],
    ]);
    let text = '';
    child.stdout.on('data', (part: Buffer) => (text += part.toString()));
    await waitFor(() => text.includes('33 44'), { what: 'the size of the terminal' });
    expect((await send('POST', `/exec/${id}/resize?h=55&w=66`)).status).toBe(200);
    expect((await inspect(id)).Running).toBe(true);
    await t.ok('exec', 'box', 'touch', '/tmp/resized');
    await waitFor(() => text.includes('55 66'), { what: 'the new size' });
    await waitFor(async () => !(await inspect(id)).Running, { what: 'the end' });
  });

  it('detached processes run on and can be inspected after their end', async () => {
    const id = await create({ Cmd: ['sh', '-c', 'while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 9'] });
    expect(await inspect(id)).toMatchObject({ Running: false, ExitCode: null, Pid: 0 });
    expect((await send('POST', `/exec/${id}/start`, { Detach: true })).status).toBe(200);
    const running = await inspect(id);
    expect(running).toMatchObject({ Running: true, ExitCode: null });
    expect(running.Pid).toBeGreaterThan(1);
    const again = await send('POST', `/exec/${id}/start`, { Detach: true });
    expect([again.status, again.json]).toEqual([409, { message: `exec command ${id} is already running` }]);
    await t.ok('exec', 'box', 'touch', '/tmp/go');
    await waitFor(async () => (await inspect(id)).ExitCode === 9, { what: 'its end' });
    expect((await send('POST', `/exec/${id}/start`, { Detach: true })).json).toEqual({
      message: `exec command ${id} has already run`,
    });
  });

  it('tells its events', async () => {
    const since = String(Date.now() / 1000);
    await t.docker(['exec', 'box', 'sh', '-c', 'exit 4']);
    const told = await t.ok(
      ...['events', '--since', since, '--until', String(Date.now() / 1000 + 1), '--filter', 'container=box'],
      ...['--format', '{{.Action}} {{.Actor.Attributes.exitCode}}'],
    );
    expect(told.split('\n').map((line) => line.trim())).toEqual([
      'exec_create: sh -c exit 4 <no value>',
      'exec_start: sh -c exit 4 <no value>',
      'exec_die 4',
    ]);
  });

  it('refuses what cannot be: no such exec or container, none that runs, bad input', async () => {
    expect(await send('GET', '/exec/absent/json')).toMatchObject({
      status: 404,
      json: { message: 'No such exec instance: absent' },
    });
    expect((await send('POST', '/exec/absent/start', {})).status).toBe(404);
    expect((await send('POST', '/containers/absent/exec', { Cmd: ['true'] })).status).toBe(404);
    expect((await send('POST', '/containers/box/exec', { Cmd: [] })).status).toBe(400);
    expect((await send('POST', '/containers/box/exec', { Cmd: ['true'], WorkingDir: 'here' })).status).toBe(400);
    expect((await send('POST', '/containers/box/exec', { Cmd: ['true'], DetachKeys: 'nonsense' })).status).toBe(400);
    await t.ok('create', '--name', 'cold', 'busybox', 'true');
    const stopped = await t.docker(['exec', 'cold', 'true']);
    expect([stopped.code, stopped.stderr]).toEqual([1, expect.stringMatching(/container [0-9a-f]{64} is not running/)]);
    await t.ok('rm', 'cold');
  });

  it('inspect of the container tells of those that can be started or run', async () => {
    const shown = async (name = 'box') =>
      JSON.parse(await t.ok('inspect', '-f', '{{json .ExecIDs}}', name)) as string[] | null;
    const eventually = (value: string[] | null) => expect.poll(() => shown(), { timeout: 20_000 }).toEqual(value);
    await eventually(null);
    const first = await create({ Cmd: ['cat'] });
    expect(await shown()).toEqual([first]);
    const second = await create({ Cmd: ['sleep', '1000'] });
    await send('POST', `/exec/${second}/start`, { Detach: true });
    expect(await shown()).toEqual([first, second]);
    // A change of the container itself takes none away.
    await t.ok('update', '--memory', '512m', '--memory-swap', '512m', 'box');
    await killService(t, 'container');
    expect((await shown())?.sort()).toEqual([first, second].sort());
    await send('POST', `/exec/${first}/start`, { Detach: true });
    killProcess((await inspect(second)).Pid);
    await eventually(null);
    await t.ok('run', '-d', '--name', 'over', 'busybox', 'sleep', '1000');
    const never = await create({ Cmd: ['true'] }, 'over');
    await t.ok('kill', 'over');
    expect(await shown('over')).toBeNull();
    await waitFor(async () => (await send('GET', `/exec/${never}/json`)).status === 404, { what: 'the record to go' });
    await t.ok('rm', 'over');
  });

  it('an exec ends with its container and is forgotten with it', async () => {
    await t.ok('run', '-d', '--name', 'brief', 'busybox', 'sleep', '1000');
    const id = await create({ Cmd: ['sleep', '1000'] }, 'brief');
    await send('POST', `/exec/${id}/start`, { Detach: true });
    const attached = t.docker(['exec', 'brief', 'sleep', '1000']);
    await waitFor(async () => (await t.ok('exec', 'brief', 'ps')).split('sleep 1000').length === 4, { what: 'three' });
    await t.ok('kill', 'brief');
    expect((await attached).code).toBe(137);
    expect(await inspect(id)).toMatchObject({ Running: false, ExitCode: 137 });
    await t.ok('rm', 'brief');
    await waitFor(async () => (await send('GET', `/exec/${id}/json`)).status === 404, { what: 'the record to go' });
  });

  it('outlives the container service: pid, exit code and the record of one that was not started', async () => {
    const waiting = await create({ Cmd: ['sh', '-c', 'exit 6'] });
    const id = await create({ Cmd: ['sh', '-c', 'while [ ! -e /tmp/now ]; do sleep 0.05; done; exit 8'] });
    await send('POST', `/exec/${id}/start`, { Detach: true });
    const { Pid: pid } = await inspect(id);
    await killService(t, 'container');
    expect(await inspect(id)).toMatchObject({ Running: true, Pid: pid });
    await t.ok('exec', 'box', 'touch', '/tmp/now');
    await waitFor(async () => (await inspect(id)).ExitCode === 8, { what: 'its exit code' });
    await send('POST', `/exec/${waiting}/start`, { Detach: true });
    await waitFor(async () => (await inspect(waiting)).ExitCode === 6, { what: 'the exit code of the other' });
  });
});

async function killService(t: TestEngine, name: string): Promise<void> {
  const serviceOf = async () => (await t.engine.services()).find(({ service }) => service === name);
  const before = await serviceOf();
  if (before === undefined) throw new Error(`no service ${name}`);
  process.kill(before.pid, 'SIGKILL');
  await waitFor(
    async () => {
      const now = await serviceOf();
      return now !== undefined && now.pid !== before.pid && now.health === 'SERVING';
    },
    { what: `${name} to be back` },
  );
}
