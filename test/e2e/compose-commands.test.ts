import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { composeProject, type ComposeProject } from './compose-cli.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const directory = join(import.meta.dirname, 'compose-projects/commands');

describe('docker compose v2: its commands', () => {
  let t: TestEngine;
  let project: ComposeProject;
  beforeAll(async () => {
    t = await startTestEngine();
    project = composeProject(t, { name: 'cmd', directory });
    await project.ok('up', '-d');
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const ids = async (service: string) => (await project.ok('ps', '-aq', '--no-trunc', service)).split('\n').sort();
  const states = async (service: string) =>
    (await project.ok('ps', '-a', '--format', '{{.State}} {{.ExitCode}}', service)).split('\n');
  const mounts = async (service: string) =>
    (await t.ok('inspect', '-f', '{{range .Mounts}}{{.Destination}} {{.Name}};{{end}}', ...(await ids(service))))
      .split(';')
      .filter(Boolean)
      .sort();

  it('makes anew what has changed, and nothing else', async () => {
    const changed = composeProject(t, { name: 'cmd', directory, env: { GREETING: 'changed' } });
    const [web, other, before] = [await ids('web'), await ids('other'), await mounts('web')];
    await project.ok('exec', '-T', 'web', 'sh', '-c', 'echo one > /anonymous/f; echo two > /kept/f');
    expect((await project.run('up', '-d', 'web', 'other')).stderr).not.toMatch(/Recreate|Start|Creat/);
    expect(await ids('web')).toEqual(web);
    await changed.ok('up', '-d', 'web', 'other');
    expect(await ids('web')).not.toEqual(web);
    expect(await ids('other')).toEqual(other);
    expect(await mounts('web')).toEqual(before);
    expect(await project.ok('logs', '--no-log-prefix', 'web')).toBe('changed');
    expect(await project.ok('exec', '-T', 'web', 'cat', '/anonymous/f', '/kept/f')).toBe('one\ntwo');
    await changed.ok('up', '-d', '--force-recreate', '-V', 'web');
    expect(await project.ok('exec', '-T', 'web', 'ls', '/anonymous', '/kept')).toBe('/anonymous:\n\n/kept:\nf');
    expect(await mounts('web')).not.toEqual(before);
  });

  it('stops, starts, pauses, kills and removes', async () => {
    await project.ok('pause', 'web');
    expect(await states('web')).toEqual(['paused 0']);
    expect((await project.run('pause', 'web')).stderr).toContain('is already paused');
    await project.ok('unpause', 'web');
    expect(await states('web')).toEqual(['running 0']);
    await project.ok('kill', 'other');
    expect(await states('other')).toEqual(['exited 137', 'exited 137']);
    await project.ok('start', 'other');
    const pids = () => t.ok('inspect', '-f', '{{.State.Pid}}', 'cmd-other-1', 'cmd-other-2');
    const before = await pids();
    await project.ok('restart', 'other');
    expect(await states('other')).toEqual(['running 0', 'running 0']);
    expect(await pids()).not.toBe(before);
    await project.ok('stop', 'other');
    expect(await project.ok('ps', '-a', '--status', 'exited', '--format', '{{.Name}}', 'other')).toBe(
      'cmd-other-1\ncmd-other-2',
    );
    await project.ok('rm', '-f', 'other');
    expect(await project.ok('ps', '-aq', 'other')).toBe('');
    await project.ok('up', '-d', '--scale', 'other=1', 'other');
    expect(await ids('other')).toHaveLength(1);
  });

  it('runs commands in services and beside them', async () => {
    const exec = (...args: string[]) => project.run('exec', '-T', ...args);
    expect(await exec('web', 'sh', '-c', 'echo out; echo err >&2; exit 7')).toEqual({
      code: 7,
      stdout: 'out\n',
      stderr: 'err\n',
    });
    const asked = await exec('-u', 'nobody', '-w', '/tmp', '-e', 'A=b', 'web', 'sh', '-c', 'id -un; pwd; echo $A');
    expect(asked.stdout).toBe('nobody\n/tmp\nb\n');
    expect(await project.run('run', '--rm', '-T', 'tool', 'sh', '-c', 'echo $WHO; hostname >&2; exit 4')).toEqual({
      code: 4,
      stdout: 'tool\n',
      stderr: expect.stringMatching(/^[0-9a-f]{12}\n$/) as string,
    });
    const beside = ['run', '--rm', '-T', '--no-deps', '-e', 'WHO=me', '-v', 'kept:/mine', '--entrypoint', 'sh -c'];
    expect(await project.ok(...beside, 'tool', 'echo $WHO; cat /mine/f')).toBe('me\ntwo');
    await project.ok('run', '-d', '--name', 'kept-running', 'tool', 'sleep', '60');
    expect(await project.ok('ps', '--format', '{{.Name}}', '--orphans=false')).not.toContain('kept-running');
    await t.ok('rm', '-f', 'kept-running');
    expect(await project.ok('ps', '-aq', 'tool')).toBe('');
  });

  it('shows processes, images, ports and logs', async () => {
    expect(await project.ok('top', 'web')).toMatch(/cmd-web-1\n.*CMD.*\n.*sleep 600/);
    expect(await project.ok('images', '-q', 'web')).toContain(t.busybox.id.slice(7, 19));
    const port = await project.ok('port', 'web', '80');
    expect(port).toMatch(/^0\.0\.0\.0:1808\d$/);
    const listed = JSON.parse(await project.ok('ps', '--format', 'json', 'web')) as Record<string, unknown>;
    expect(listed).toMatchObject({ Name: 'cmd-web-1', Service: 'web', Project: 'cmd', State: 'running', Health: '' });
    expect(listed['Publishers']).toContainEqual({
      URL: '0.0.0.0',
      TargetPort: 80,
      PublishedPort: Number(port.split(':')[1]),
      Protocol: 'tcp',
    });
    expect(await project.ok('ls', '-q')).toBe('cmd');
    await project.ok('up', '-d', '--force-recreate', 'talker');
    expect(await project.ok('logs', '-f', 'talker')).toBe(
      'talker-1  | line 1\ntalker-1  | line 2\ntalker-1  | line 3\ntalker-1 exited with code 0',
    );
    expect(await project.ok('logs', '-t', '--tail', '1', '--no-log-prefix', 'talker')).toMatch(/^\S+Z line 3$/);
    expect(await project.ok('ps', '-a', '--format', '{{.State}} {{.ExitCode}}', 'failing')).toBe('exited 3');
    expect(await t.ok('inspect', '-f', '{{.RestartCount}}', 'cmd-failing-1')).toBe('2');
  });

  it('stays in the foreground until it ends or is interrupted', async () => {
    const attached = await project.run('up', '--exit-code-from', 'talker', 'talker', 'other');
    expect(attached.code).toBe(0);
    expect(attached.stdout).toMatch(/talker-1 +\| line 1\n.*talker-1 +\| line 3\ntalker-1 exited with code 0\n/s);
    expect(await states('other')).toEqual(['exited 137', 'exited 137']);
    const following = project.follow('up', 'other', 'talker');
    // Interrupted before that, compose 2.26 does not end, beside dockerd neither.
    await expect.poll(() => following.text()).toContain('talker-1 exited with code 0');
    await following.stop();
    expect(await following.ended).toBe(130);
    expect(await states('other')).toEqual(['exited 137', 'exited 137']);
    await project.ok('up', '-d', '--scale', 'other=1', 'other');
  });

  it('copies and tells what happens', async () => {
    const events = project.follow('events', '--json');
    const seen = () =>
      events
        .text()
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as { service: string; action: string });
    await expect
      .poll(async () => {
        await project.ok('kill', '-s', 'WINCH', 'web');
        return seen().length;
      })
      .toBeGreaterThan(0);
    writeFileSync(`${t.directory}/in`, 'copied');
    await project.ok('cp', `${t.directory}/in`, 'web:/kept/in');
    await project.ok('cp', 'web:/kept/in', `${t.directory}/out`);
    expect(readFileSync(`${t.directory}/out`, 'utf8')).toBe('copied');
    await project.ok('restart', 'web');
    await expect.poll(() => seen().map(({ service, action }) => `${service} ${action}`)).toContain('web start');
    const actions = seen().map(({ action }) => action);
    await events.stop();
    expect(actions.filter((action) => ['die', 'stop', 'start'].includes(action))).toEqual(['die', 'stop', 'start']);
  });

  it('pulls from a registry and refuses to build', async () => {
    await t.ok('rmi', '127.0.0.1:5000/busybox:latest');
    await project.ok('pull', 'pulled');
    expect(await t.ok('image', 'ls', '-q', '127.0.0.1:5000/busybox')).toBe(t.busybox.id.slice(7, 19));
    await project.ok('up', '-d', 'pulled');
    expect(await states('pulled')).toEqual(['running 0']);
    const classic = composeProject(t, { name: 'cmd', directory, env: { DOCKER_BUILDKIT: '0' } });
    const built = await classic.run('build', 'built');
    expect(built.code).not.toBe(0);
    expect(built.stderr).toContain('building images is not implemented: build elsewhere and load or pull the image');
  });

  it('removes orphans when told to, and all of it with down', async () => {
    const fewer = ['-f', join(directory, 'fewer.yaml')];
    expect((await project.run(...fewer, 'up', '-d')).stderr).toContain('Found orphan containers');
    expect(await ids('other')).toHaveLength(1);
    await project.ok(...fewer, 'up', '-d', '--remove-orphans');
    expect(await t.ok('ps', '-a', '--format', '{{.Names}}')).toBe('cmd-web-1');
    await project.ok('down', '-v', '--remove-orphans');
    expect(await t.ok('ps', '-aq')).toBe('');
    expect(await t.ok('network', 'ls', '-q', '--filter', 'type=custom')).toBe('');
    expect(await t.ok('volume', 'ls', '-q', '--filter', 'dangling=false')).toBe('');
  });
});
