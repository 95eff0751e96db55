import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint } from './footprint.js';
import { killProcess } from './kill-process.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const machineFiles = {
  '/etc/passwd': `${readFileSync('/etc/passwd', 'utf8')}dockremap:x:990:991::/:/bin/false\n`,
  '/etc/group': `${readFileSync('/etc/group', 'utf8')}dockremap:x:991:\n`,
  '/etc/subuid': 'other:100000:65536\ndockremap:200000:65536\n',
  '/etc/subgid': 'dockremap:300000:65536\n',
};
/** The root of a remapped container has to get through. */
const prepare = (directory: string): void => chmodSync(directory, 0o711);

const listed = (tar: string | Buffer, ...members: string[]) =>
  execFileSync('tar', ['-tv', '--numeric-owner', ...members], { input: tar, encoding: 'utf8' });

describe.each([
  { setting: 'default', daemonJson: {}, args: [] },
  { setting: 'default, services in mount namespaces of their own', daemonJson: {}, args: ['--isolate-mounts'] },
  { setting: 'default, storage driver vfs', daemonJson: { 'storage-driver': 'vfs' }, args: [] },
])('userns-remap: $setting', ({ daemonJson, args }) => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine({
      ...{ args, prepare, files: machineFiles },
      daemonJson: { ...daemonJson, 'userns-remap': 'default' },
    });
  });
  afterAll(() => t[Symbol.asyncDispose]());

  const hostOwner = async (name: string) => {
    const status = readFileSync(`/proc/${await t.ok('inspect', '-f', '{{.State.Pid}}', name)}/status`, 'utf8');
    return [/^Uid:\t(\d+)/m, /^Gid:\t(\d+)/m].map((pattern) => Number(pattern.exec(status)?.[1]));
  };
  const userNamespace = async (name: string) =>
    readlinkSync(`/proc/${await t.ok('inspect', '-f', '{{.State.Pid}}', name)}/ns/user`);
  const stored = async (name: string, path: string) => {
    const id = await t.ok('inspect', '-f', '{{.Id}}', name);
    const directory = join(t.engine.dataRoot, 'image/containers', id);
    const tree = readdirSync(directory).includes('tree') ? 'tree' : 'diff';
    const { uid, gid } = lstatSync(join(directory, tree, path));
    return [uid, gid];
  };

  it('says so', async () => {
    expect(await t.ok('info', '-f', '{{json .SecurityOptions}}')).toContain('"name=userns"');
  });

  it('root inside is the first subordinate id outside; files are stored for 0; nothing is left', async () => {
    const footprint = await takeFootprint(t);
    await t.ok('run', '-d', '--name', 'mapped', 'busybox', 'sh', '-c', 'echo x > /made; exec sleep 1000');
    expect(await hostOwner('mapped')).toEqual([200000, 300000]);
    const inside = (script: string) => t.ok('exec', 'mapped', 'sh', '-c', script);
    expect(
      await inside('id -u; stat -c %u:%g /bin/busybox /made /etc/hosts /dev/shm; echo 1.2.3.4 me >> /etc/hosts'),
    ).toBe(['0', ...Array<string>(4).fill('0:0')].join('\n'));
    expect(await stored('mapped', 'made')).toEqual([0, 0]);
    expect(await t.ok('exec', '-u', 'web', 'mapped', 'id')).toBe(
      'uid=1000(web) gid=1000(web) groups=50(staff),1000(web)',
    );
    expect(await t.ok('exec', '-t', 'mapped', 'sh', '-c', 'stat -c %u $(tty)')).toMatch(/^0\r?$/);
    expect((await t.docker(['exec', '-i', 'mapped', 'cat'], { input: 'through' })).stdout).toBe('through');
    expect(await inside('echo out > /dev/stdout; ping -c 1 -W 5 127.0.0.1 > /dev/null && echo pong')).toBe('out\npong');
    expect(await t.ok('diff', 'mapped')).toContain('A /made');
    await t.ok('rm', '-f', 'mapped');
    await footprint.expectUnchanged();
  });

  it('copies in and out, commits, exports', async () => {
    const here = join(t.directory, 'here');
    mkdirSync(here);
    writeFileSync(join(here, 'file'), 'from the host');
    chownSync(join(here, 'file'), 1000, 1000);
    await t.ok('run', '-d', '--name', 'copies', 'busybox', 'sleep', '1000');
    await t.ok('exec', 'copies', 'sh', '-c', 'echo x > /own; chown web:web /own');
    for (const state of ['running', 'stopped']) {
      if (state === 'stopped') await t.ok('stop', '-t', '0', 'copies');
      await t.ok('cp', here, `copies:/${state}`);
      expect(await stored('copies', `${state}/file`)).toEqual([1000, 1000]);
      expect(listed(await t.ok('cp', 'copies:/own', '-'))).toContain(' 1000/1000 ');
    }
    await t.ok('commit', 'copies', 'committed');
    for (const userns of ['', 'host']) {
      expect(
        await t.ok(
          'run',
          '--rm',
          `--userns=${userns}`,
          'committed',
          'stat',
          '-c',
          '%u %n',
          '/own',
          '/stopped',
          '/stopped/file',
        ),
      ).toBe('1000 /own\n0 /stopped\n1000 /stopped/file');
    }
    await t.ok('export', '-o', join(here, 'export.tar'), 'copies');
    expect(listed(readFileSync(join(here, 'export.tar')), 'own')).toContain(' 1000/1000 ');
    await t.ok('rm', 'copies');
    await t.ok('rmi', 'committed');
  });

  it('fills new volumes, and shares them with containers of the host', async () => {
    await t.ok('run', '--rm', '-v', 'shared:/etc', 'busybox', 'sh', '-c', 'echo x > /etc/new; chown web /etc/new');
    const data = join(t.engine.dataRoot, 'volumes/shared/_data');
    expect([lstatSync(join(data, 'passwd')).uid, lstatSync(join(data, 'new')).uid]).toEqual([0, 1000]);
    // A set-user-id program among them would be the machine's root's.
    const look = (path: string) => execFileSync('stat', [path], { uid: 65_534, gid: 65_534, stdio: 'pipe', cwd: '/' });
    look(t.engine.dataRoot);
    for (const closed of [data, ...['layers', 'containers'].map((name) => join(t.engine.dataRoot, 'image', name))]) {
      expect(() => look(closed)).toThrow('Permission denied');
    }
    for (const userns of ['', 'host']) {
      const run = ['run', '--rm', `--userns=${userns}`, '--user', '1000', '-v', 'shared:/v', 'busybox'];
      expect(await t.ok(...run, 'sh', '-c', 'echo x > /v/new; stat -c %u /v/passwd')).toBe('0');
    }
    const inside = (...options: string[]) =>
      t.ok(
        'run',
        '--rm',
        '-v',
        'shared:/v',
        ...options,
        'busybox',
        'sh',
        '-c',
        'stat -c %u /v /v/passwd /v/new; echo > /v/t',
      );
    expect(await inside()).toBe('0\n0\n1000');
    expect(await inside('--userns=host')).toBe('0\n0\n1000');
    expect(await inside()).toBe('0\n0\n1000');
    await t.ok('volume', 'rm', 'shared');
  });

  it('a volume with mount options, a tmpfs, an init, a read-only root and limits work', async () => {
    await t.ok('volume', 'create', '--opt', 'type=tmpfs', '--opt', 'device=tmpfs', 'memory');
    const run = (...command: string[]) => t.ok('run', '--rm', ...command);
    expect(await run('-v', 'memory:/m', 'busybox', 'sh', '-c', 'echo x > /m/x; stat -c %u /m /m/x')).toBe('0\n0');
    expect(await run('--tmpfs', '/t', 'busybox', 'sh', '-c', 'echo x > /t/x; stat -c %u /t/x')).toBe('0');
    const image = 'type=image,source=busybox,target=/image';
    expect(await run('--mount', image, 'busybox', 'stat', '-c', '%u', '/image', '/image/bin/busybox')).toBe('0\n0');
    expect(await run('--ipc', 'shareable', 'busybox', 'stat', '-c', '%u %a', '/dev/shm')).toBe('0 1777');
    expect(await run('--read-only', 'busybox', 'sh', '-c', 'touch /x 2>/dev/null || echo read-only')).toBe('read-only');
    expect(await run('--init', '--memory', '64m', '--pids-limit', '20', 'busybox', 'id', '-u')).toBe('0');
    expect(await run('--ipc', 'host', 'busybox', 'id', '-u')).toBe('0');
    expect(await run('--cgroupns', 'private', 'busybox', 'head', '-n', '1', '/proc/self/cgroup')).toMatch(/:\/$/);
    // A file system that cannot show other ids: the volume is the container's root's.
    await t.ok('volume', 'create', '--opt', 'type=ramfs', '--opt', 'device=ramfs', 'plain');
    expect(await run('-v', 'plain:/m', 'busybox', 'sh', '-c', 'echo x > /m/x; stat -c %u /m /m/x')).toBe('0\n0');
    // A directory of the machine's stays the machine's, as when it is bound without a volume.
    const machine = join(t.directory, 'machine');
    mkdirSync(machine);
    const bound = ['type=none', 'o=bind', `device=${machine}`].flatMap((option) => ['--opt', option]);
    await t.ok('volume', 'create', ...bound, 'bound');
    const touch = 'stat -c %u /m; touch /m/x 2>/dev/null || echo refused';
    expect(await run('-v', 'bound:/m', 'busybox', 'sh', '-c', touch)).toBe('65534\nrefused');
    expect(await run('-v', 'bound:/m', '--userns=host', 'busybox', 'sh', '-c', touch)).toBe('0');
    expect(lstatSync(machine).uid).toBe(0);
    await t.ok('volume', 'rm', 'memory', 'plain', 'bound');
  });

  it('reaches the network, publishes ports, and shares namespaces within its user namespace', async () => {
    const page = 'mkdir /www; echo page > /www/i; exec httpd -f -p 80 -h /www';
    await t.ok('run', '-d', '--name', 'server', '--ipc', 'shareable', '-p', '18081:80', 'busybox', 'sh', '-c', page);
    await waitFor(() => t.namespace.run('busybox', ['wget', '-qO-', 'http://127.0.0.1:18081/i']) === 'page\n', {
      what: 'the page',
    });
    await t.ok(
      'run',
      '-d',
      '--name',
      'sharer',
      '--network',
      'container:server',
      '--ipc',
      'container:server',
      'busybox',
      'sleep',
      '1000',
    );
    expect(await userNamespace('sharer')).toBe(await userNamespace('server'));
    expect(await t.ok('exec', 'sharer', 'wget', '-qO-', 'http://127.0.0.1/i')).toBe('page');
    expect(await userNamespace('server')).not.toBe(readlinkSync('/proc/self/ns/user'));
    const refused = await t.docker(['exec', 'server', 'sh', '-c', 'echo > /sys/fs/cgroup/pids/cgroup.procs']);
    expect(refused.stderr).toContain('Permission denied');
    await t.ok('rm', '-f', 'server', 'sharer');
  });

  it.each([
    [['--privileged'], 'privileged mode is incompatible with user namespaces.'],
    [['--network', 'host'], "cannot share the host's network namespace when user namespaces are enabled"],
    [['--pid', 'host'], 'cannot share the host PID namespace when user namespaces are enabled'],
  ])('refuses %j, but not with --userns=host', async (options, message) => {
    const refused = await t.docker(['run', '--rm', ...options, 'busybox', 'true']);
    expect([refused.code, refused.stderr]).toEqual([125, expect.stringContaining(message)]);
    const script = 'cat /proc/self/uid_map';
    const map = await t.ok('run', '--rm', '--userns=host', ...options, 'busybox', 'sh', '-c', script);
    expect(map.trim().split(/\s+/)).toEqual(['0', '0', '4294967295']);
  });

  it('kill -9 of the container service: the container goes on, stops, starts and goes', async () => {
    const footprint = await takeFootprint(t);
    await t.ok('run', '-d', '--name', 'survivor', '-v', 'kept:/kept', 'busybox', 'sleep', '1000');
    const before = await hostOwner('survivor');
    const pid = (await t.engine.services()).find(({ service }) => service === 'container')?.pid ?? 0;
    killProcess(pid);
    expect(await t.ok('exec', 'survivor', 'id', '-u')).toBe('0');
    expect(await hostOwner('survivor')).toEqual(before);
    await t.ok('stop', '-t', '0', 'survivor');
    await t.ok('start', 'survivor');
    expect(await t.ok('exec', 'survivor', 'sh', '-c', 'echo x > /kept/x; stat -c %u /kept/x')).toBe('0');
    await t.ok('rm', '-f', 'survivor');
    await t.ok('volume', 'rm', 'kept');
    // A service in a mount namespace of its own is in another after its restart.
    if (args.length === 0) await footprint.expectUnchanged();
  });
});

it('an engine whose root directory the remapped root cannot enter says so', async () => {
  const started = startTestEngine({ files: machineFiles, daemonJson: { 'userns-remap': 'dockremap:dockremap' } });
  await expect(started.then((engine) => engine[Symbol.asyncDispose]())).rejects.toThrow(
    /restricts access to the remapped root uid\/gid; please fix by allowing 'o\+x' permissions on existing directories/,
  );
}, 120_000);
