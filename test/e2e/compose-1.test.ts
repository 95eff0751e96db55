import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compose1Project, type ComposeProject } from './compose-cli.js';
import { takeFootprint } from './footprint.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const directory = join(import.meta.dirname, 'compose-projects/version-1');

describe('docker-compose 1.29', () => {
  let t: TestEngine;
  let project: ComposeProject;
  beforeAll(async () => {
    t = await startTestEngine();
    project = compose1Project(t, { name: 'one', directory });
    await t.ok('network', 'create', 'one_before');
    await t.ok('run', '-d', '--name', 'outside', '--network', 'one_before', 'busybox', 'sleep', '600');
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const id = async (service: string) => (await project.ok('ps', '-q', service)).trim();
  const states = (service: string) =>
    t.ok('ps', '-a', '--format', '{{.State}}', '--filter', `label=com.docker.compose.service=${service}`);

  it('brings up a file of version 2.4, in order', async () => {
    await project.ok('up', '-d');
    expect(await states('job')).toBe('exited');
    expect(await states('worker')).toBe('running\nrunning');
    expect((await project.ok('ps', '--services')).split('\n').sort()).toEqual([
      'db',
      'job',
      'side',
      'tool',
      'web',
      'worker',
    ]);
    expect((await project.ok('ps', '-q')).split('\n')).toHaveLength(6);
    const script = `wget -qO- http://database; wget -qO- http://db; cat /data/index.html; hostname
      grep -c 192.0.2.9.fixed /etc/hosts; df -k /scratch /dev/shm | awk 'NR > 1 { print $2 }'; echo "$FILE, $GREETING"
      ls -d /anonymous; touch /data/x; ulimit -n; cat /proc/sys/net/core/somaxconn; ip -o -4 addr show eth1 | grep -o 10.224.0.10
      nslookup worker | grep -c ^Name`;
    expect((await project.ok('exec', '-T', 'web', 'sh', '-c', `{ ${script}; } 2>&1`)).split('\n')).toEqual([
      'from-job',
      'from-job',
      'from-job',
      (await id('web')).slice(0, 12),
      '1',
      '1024',
      '32768',
      'by file, hello',
      '/anonymous',
      'touch: /data/x: Read-only file system',
      '1024',
      '512',
      '10.224.0.10',
      '2',
    ]);
    const namespaces = (container: string) =>
      t.ok('exec', container, 'sh', '-c', 'readlink /proc/self/ns/net; readlink /proc/self/ns/pid');
    const [net] = (await namespaces('one_web_1')).split('\n');
    const [, pid] = (await namespaces('outside')).split('\n');
    expect(await namespaces('one_side_1')).toBe(`${net ?? ''}\n${pid ?? ''}`);
    expect(await t.ok('inspect', '-f', '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}', await id('web'))).toBe(
      `${64 << 20} 500000000`,
    );
  });

  it('reaches a container that is not its own by an external link', async () => {
    await t.ok('network', 'connect', 'one_default', 'outside');
    await project.ok('exec', '-T', 'web', 'ping', '-c', '1', '-W', '5', 'external');
    await t.ok('network', 'disconnect', 'one_default', 'outside');
  });

  it('makes anew what has changed, and nothing else', async () => {
    const [db, web] = [await id('db'), await id('web')];
    expect((await project.run('up', '-d')).stderr).toContain('one_web_1 is up-to-date');
    expect(await id('web')).toBe(web);
    await compose1Project(t, { name: 'one', directory, env: { GREETING: 'changed' } }).ok('up', '-d');
    expect(await id('web')).not.toBe(web);
    expect(await id('db')).toBe(db);
    expect(await project.ok('exec', '-T', 'web', 'sh', '-c', 'echo $GREETING')).toBe('changed');
  });

  it('has its commands', async () => {
    expect(await project.ok('port', 'web', '81')).toBe('0.0.0.0:18101');
    expect(await project.ok('logs', '--no-color', 'web')).toMatch(/web_1\s+\| started$/);
    expect(await project.ok('top', 'web')).toContain('sleep 600');
    expect((await project.run('exec', '-T', 'web', 'sh', '-c', 'exit 9')).code).toBe(9);
    const run = await project.run('run', '--rm', '-T', '-e', 'A=b', 'tool', 'sh', '-c', 'echo $A; exit 3');
    expect(run).toMatchObject({ code: 3, stdout: 'b\n' });
    await project.ok('up', '-d', '--scale', 'worker=3', 'worker');
    expect(await states('worker')).toBe('running\nrunning\nrunning');
    await project.ok('restart', '-t', '0', 'worker');
    await project.ok('kill', 'worker');
    expect(await states('worker')).toBe('exited\nexited\nexited');
    await project.ok('rm', '-f', 'worker');
    expect(await states('worker')).toBe('');
    await project.ok('up', '-d', '--force-recreate', '-V', '--no-deps', 'db');
  });

  it('takes all of it away', async () => {
    await project.ok('down', '-v', '--remove-orphans', '-t', '0');
    expect(await t.ok('ps', '-a', '--format', '{{.Names}}')).toBe('outside');
    expect(await t.ok('network', 'ls', '--filter', 'type=custom', '--format', '{{.Name}}')).toBe('one_before');
    expect(await t.ok('volume', 'ls', '-q', '--filter', 'label=of=data')).toBe('');
  });

  it('brings up a file of version 3.8 with secrets and what is external, and leaves that', async () => {
    await t.ok('network', 'create', 'outer-net');
    await t.ok('volume', 'create', 'kept');
    const footprint = await takeFootprint(t);
    const file = ['-f', join(directory, 'current.yml')];
    await project.ok(...file, '--compatibility', 'up', '-d');
    const script = 'cat /run/secrets/plain /bound; df -k /memory | awk "NR > 1 { print \\$2 }"; touch /kept/x';
    expect(await project.ok(...file, 'exec', '-T', 'app', 'sh', '-c', script)).toBe('secret text\nFILE=by file\n1024');
    expect(await t.ok('inspect', '-f', '{{.HostConfig.Memory}}', 'one_app_1')).toBe(`${64 << 20}`);
    await project.ok(...file, 'down', '-v');
    await footprint.expectUnchanged();
  });
});
