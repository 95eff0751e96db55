import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { composeProject, type ComposeProject } from './compose-cli.js';
import { takeFootprint } from './footprint.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('docker compose v2: what a service can ask for', () => {
  let t: TestEngine;
  let project: ComposeProject;
  beforeAll(async () => {
    t = await startTestEngine();
    const directory = join(import.meta.dirname, 'compose-projects/options');
    project = composeProject(t, { name: 'opt', directory, env: { FROM_SHELL: 'shell' } });
    await t.ok('network', 'create', 'outer-net');
    await t.ok('run', '-d', '--name', 'outside', '-v', '/of-outside', 'busybox', 'sleep', '600');
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  /** What each line of a script printed in a service; lines of one command are joined by a space. */
  const inside = async (service: string, ...script: string[]): Promise<string[]> => {
    const lines = script.map((line) => `{ ${line}; } 2>&1 | xargs`);
    return (await project.ok('exec', '-T', service, 'sh', '-c', lines.join('\n'))).split('\n');
  };
  const inspect = async <T>(path: string, ...names: string[]): Promise<T> =>
    JSON.parse(await t.ok('inspect', '-f', `{{json ${path}}}`, ...names)) as T;

  it('comes up, and goes without a trace', async () => {
    const footprint = await takeFootprint(t);
    await project.ok('up', '-d', '--wait');
    await project.ok('down', '-v');
    await footprint.expectUnchanged();
    await project.ok('up', '-d', '--wait');
    const states = await project.ok('ps', '-a', '--format', '{{.Service}} {{.State}} {{.ExitCode}}');
    const running = ['all', 'from', 'host', 'netns', 'none', 'outside', 'shareable', 'web'];
    expect(states.split('\n').sort()).toEqual([...running.map((it) => `${it} running 0`), 'init exited 0'].sort());
  });

  it('gives names, users, limits, capabilities and environment', async () => {
    expect(
      await inside(
        'all',
        'hostname; hostname -f',
        'id -u; id -g; id -G',
        'pwd',
        // Not the soft limit of files: runc 1.1 gives a process of exec the hard one now and then.
        'ulimit -Hn; ulimit -u',
        'cat /proc/sys/net/core/somaxconn /proc/self/oom_score_adj',
        'echo $OVERRIDDEN, $FROM_FILE, $FROM_SHELL, $DEFAULTED',
        'touch /x',
        'grep -E "NoNewPrivs" /proc/self/status',
        'df -k /dev/shm /scratch /long /sized | tail -n +2 | awk "{print \\$2}"',
        'stat -c %a:%u /scratch /long /sized',
        'ls -l /dev/mynull | cut -c1-10',
        'cat /proc/1/comm',
      ),
    ).toEqual([
      'allhost allhost.example.test',
      '1000 50 50 1000',
      '/work',
      '2000 500',
      '1234 300',
      'environment, by file, shell, default',
      'touch: /x: Read-only file system',
      'NoNewPrivs: 1',
      '98304 4096 2048 1024',
      '1777:0 1770:0 1777:1000',
      'crw-rw-rw-',
      'docker-init',
    ]);
    expect(await inspect('.HostConfig', 'opt-all-1')).toMatchObject({
      Memory: 64 << 20,
      MemoryReservation: 32 << 20,
      NanoCpus: 500_000_000,
      PidsLimit: 200,
      CapAdd: ['NET_ADMIN'],
      CapDrop: ['CHOWN'],
      Ulimits: expect.arrayContaining([{ Name: 'nofile', Soft: 1000, Hard: 2000 }]) as unknown,
      Annotations: { 'org.example.note': 'noted' },
      LogConfig: { Type: 'json-file', Config: { 'max-size': '1m', 'max-file': '2', tag: 'tagged' } },
    });
    expect(await inspect('.Config', 'opt-all-1')).toMatchObject({
      Labels: { 'org.example.one': '1', 'org.example.two': 'two words' },
      StopSignal: 'SIGKILL',
      Tty: true,
      OpenStdin: true,
    });
  });

  it('gives secrets, configs and every kind of mount', async () => {
    expect(
      await inside(
        'all',
        'cat /run/secrets/plain /run/secrets/other_name',
        'cat /etc/app.conf /bound',
        'cat /shared/sub/file /nested/file',
        'touch /shared/x',
        'touch /bound',
        'ls -d /anonymous',
      ),
    ).toEqual([
      'secret text secret text',
      'config text config text',
      'nested nested',
      'touch: /shared/x: Read-only file system',
      'touch: /bound: Read-only file system',
      '/anonymous',
    ]);
    const mounts = await inspect<{ Type: string; Destination: string; RW: boolean }[]>('.Mounts', 'opt-all-1');
    const shown = mounts.map(({ Type, Destination, RW }) => `${Type} ${Destination} ${RW ? 'rw' : 'ro'}`);
    expect(shown.sort()).toEqual([
      'bind /bound ro',
      'bind /etc/app.conf ro',
      'bind /run/secrets/other_name ro',
      'bind /run/secrets/plain ro',
      'tmpfs /long rw',
      'volume /anonymous rw',
      'volume /nested rw',
      'volume /shared ro',
      'volume /sized rw',
    ]);
    expect(
      await inside('from', 'cat /here/sub/file', 'touch /here/x && echo ok', 'touch /of-outside/x && echo ok'),
    ).toEqual(['nested', 'ok', 'ok']);
    expect(await t.ok('volume', 'inspect', '-f', '{{.Labels.of}} {{.Options}}', 'opt_shared', 'opt_sized')).toBe(
      'shared map[]\n<no value> map[device:tmpfs o:size=1m,uid=1000 type:tmpfs]',
    );
  });

  it('gives addresses, names and ports', async () => {
    expect(
      await inside(
        'all',
        'cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address',
        'ip -o addr show scope global | grep -oE "eth.*(inet|inet6) [^ ]*" | grep -v 10.223.0',
        'cat /etc/resolv.conf',
        'grep -E "fixed|host.docker" /etc/hosts | sort',
      ),
    ).toEqual([
      '1400 02:42:0a:01:02:03',
      'eth0 inet 10.222.1.10/16 eth1 inet6 fd00:222::10/64',
      'nameserver 127.0.0.11 search search.test options ndots:3',
      '172.17.0.1 host.docker.internal 192.0.2.10 fixed',
    ]);
    const found = await inside(
      'web',
      ...['all', 'first', 'second', 'opt-all-1', 'opt-all-1.opt_blue', 'webby'].map(
        (name) => `ping -c 1 -W 5 ${name} | grep -o "from [0-9.]*"`,
      ),
    );
    expect(found.slice(0, 5)).toEqual(Array(5).fill('from 10.222.1.10'));
    expect(found.slice(5)).toEqual([expect.stringMatching(/^from 172/)]);
    expect(await inside('from', 'ping -6 -c 1 -W 5 third | grep -o "from [0-9a-f:]*:"')).toEqual([
      'from fd00:222::10:',
    ]);
    expect(
      await t.ok('network', 'inspect', '-f', '{{.EnableIPv6}} {{.Attachable}} {{.Labels.of}}', 'opt_blue', 'opt_six'),
    ).toBe('false true blue\ntrue false <no value>');
    expect(await project.ok('port', 'web', '81')).toBe('0.0.0.0:18101');
    expect(await project.ok('port', '--protocol', 'udp', 'web', '53')).toBe('0.0.0.0:18140');
    for (const port of [18100, 18110, 18120])
      expect(t.namespace.run('curl', ['-sS', `http://127.0.0.1:${port}/hostname`])).toMatch(/^[0-9a-f]{12}\n$/);
  });

  it('shares namespaces of services and containers', async () => {
    const own = (kind: string) => `readlink /proc/self/ns/${kind}`;
    expect(await inside('netns', own('net'), own('pid'))).toEqual(await inside('all', own('net'), own('pid')));
    expect(await inside('netns', own('ipc'))).toEqual(await inside('shareable', own('ipc')));
    const outside = await t.ok('exec', 'outside', 'sh', '-c', `${own('net')}; ${own('pid')}`);
    expect(await inside('outside', own('net'), own('pid'))).toEqual(outside.split('\n'));
    expect(await inside('none', 'ip -o -4 addr | wc -l')).toEqual(['1']);
    expect(await inside('host', 'ls /sys/class/net | grep -c brblue')).toEqual(['1']);
  });
});
