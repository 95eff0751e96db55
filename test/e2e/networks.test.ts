import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('networks', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const address = (name: string, network = 'bridge') =>
    t.ok('inspect', '-f', `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`, name);
  const serve = (...args: string[]) =>
    t.ok('run', '-d', ...args, 'busybox', 'sh', '-c', 'hostname > /tmp/index.html; exec httpd -f -p 80 -h /tmp');
  const get = (url: string) =>
    t.namespace
      .run('curl', ['-sS', '--max-time', '5', '--retry', '20', '--retry-connrefused', '--retry-delay', '0', url])
      .trim();

  it('has bridge, host and none', async () => {
    const names = (await t.ok('network', 'ls', '--format', '{{.Name}} {{.Driver}} {{.Scope}}')).split('\n').sort();
    expect(names).toEqual(['bridge bridge local', 'host host local', 'none null local']);
    const refused = await t.docker(['network', 'rm', 'bridge']);
    expect(refused.stderr).toContain('bridge is a pre-defined network and cannot be removed');
  });

  it('gives addresses on the default bridge and reaches neighbours', async () => {
    await serve('--name', 'web', '-h', 'webhost');
    const ip = await address('web');
    expect(ip).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
    expect(get(`http://${ip}/`)).toBe('webhost');
    expect(await t.ok('run', '--rm', 'busybox', 'wget', '-qO-', `http://${ip}/`)).toBe('webhost');
    await t.ok('rm', '-f', 'web');
  });

  it('publishes TCP ports on all addresses, one address, random and ranges', async () => {
    await serve('--name', 'pub', '-h', 'published', '-p', '18080:80', '-p', '127.0.0.1:18081:80', '-p', '80');
    expect(get('http://127.0.0.1:18080/')).toBe('published');
    expect(get('http://127.0.0.1:18081/')).toBe('published');
    const ports = await t.ok('port', 'pub', '80');
    expect(ports).toContain('0.0.0.0:18080');
    expect(ports).toContain('127.0.0.1:18081');
    const random = /0\.0\.0\.0:(\d+)/.exec(ports.replace('0.0.0.0:18080', ''))?.[1];
    expect(get(`http://127.0.0.1:${random ?? ''}/`)).toBe('published');
    await t.ok('rm', '-f', 'pub');
    await serve('--name', 'range', '-h', 'ranged', '-p', '18090-18092:80');
    expect(await t.ok('port', 'range', '80')).toMatch(/0\.0\.0\.0:1809[0-2]/);
    await t.ok('rm', '-f', 'range');
  });

  it('publishes UDP ports', async () => {
    await t.ok('run', '-d', '--name', 'udp', '-p', '18053:53/udp', 'busybox', 'sleep', '600');
    const pid = await t.ok('inspect', '-f', '{{.State.Pid}}', 'udp');
    // Debian's busybox has no UDP server: Node serves inside the container's network namespace.
    const echo = `const s = require('dgram').createSocket('udp4');
      s.on('message', (m, from) => s.send(m, from.port, from.address)).bind(53);`;
    const server = spawn('nsenter', [`--net=/proc/${pid}/ns/net`, process.execPath, '-e', echo], { stdio: 'ignore' });
    const ask = `const s = require('dgram').createSocket('udp4');
      s.on('message', (m, from) => { console.log(from.address, from.port, String(m)); process.exit(); });
      setInterval(() => s.send('datagram', 18053, '127.0.0.1'), 20);
      setTimeout(() => process.exit(1), 10_000);`;
    expect(t.namespace.run(process.execPath, ['-e', ask])).toBe('127.0.0.1 18053 datagram\n');
    const ended = once(server, 'exit');
    server.kill();
    await ended;
    await t.ok('rm', '-f', 'udp');
  });

  it('refuses a port in use, by a container and by a process of the host', async () => {
    await t.ok('run', '-d', '--name', 'first', '-p', '18080:80', 'busybox', 'sleep', '600');
    const second = await t.docker(['run', '-d', '--name', 'second', '-p', '18080:80', 'busybox', 'sleep', '600']);
    expect(second.code).toBe(125);
    expect(second.stderr).toContain('port is already allocated');
    await t.ok('rm', 'second');
    await t.ok('rm', '-f', 'first');
    const taken = await t.docker(['run', '--rm', '-p', '5000:80', 'busybox', 'true']);
    expect(taken.code).toBe(125);
    expect(taken.stderr).toMatch(/address already in use|port is already allocated/);
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('has network modes host, none and container', async () => {
    expect(
      await t.ok('run', '--rm', '--network', 'none', 'busybox', 'sh', '-c', 'ls /sys/class/net; ip -o -4 addr | wc -l'),
    ).toBe('lo\n1');
    expect(
      await t.ok('run', '--rm', '--network', 'host', 'busybox', 'wget', '-qO-', `http://${t.registry.address}/v2/`),
    ).toBe('{}');
    await serve('--name', 'owner');
    await waitFor(
      async () =>
        (
          await t.docker([
            'run',
            '--rm',
            '--network',
            'container:owner',
            'busybox',
            'wget',
            '-qO-',
            'http://127.0.0.1/',
          ])
        ).code === 0,
      { what: 'the shared namespace' },
    );
    await t.ok('rm', '-f', 'owner');
  });

  it('resolves names and aliases on user-defined networks and isolates them', async () => {
    await t.ok('network', 'create', '--subnet', '10.211.0.0/24', 'blue');
    await t.ok('network', 'create', 'green');
    await serve('--name', 'db', '--network', 'blue', '--network-alias', 'database', '-h', 'dbhost');
    await serve('--name', 'other', '--network', 'green', '-h', 'otherhost');
    expect(await address('db', 'blue')).toMatch(/^10\.211\.0\./);
    for (const name of ['db', 'database', (await t.ok('inspect', '-f', '{{.Id}}', 'db')).slice(0, 12)]) {
      expect(await t.ok('run', '--rm', '--network', 'blue', 'busybox', 'wget', '-qO-', `http://${name}/`)).toBe(
        'dbhost',
      );
    }
    expect(await t.ok('run', '--rm', '--network', 'blue', 'busybox', 'cat', '/etc/resolv.conf')).toContain(
      'nameserver 127.0.0.11',
    );
    expect((await t.docker(['run', '--rm', '--network', 'green', 'busybox', 'nslookup', 'db'])).code).not.toBe(0);
    const dbAddress = await address('db', 'blue');
    expect(
      (
        await t.docker([
          'run',
          '--rm',
          '--network',
          'green',
          'busybox',
          'wget',
          '-T',
          '2',
          '-qO-',
          `http://${dbAddress}/`,
        ])
      ).code,
    ).not.toBe(0);
    const active = await t.docker(['network', 'rm', 'blue']);
    expect(active.stderr).toContain('has active endpoints');
    await t.ok('rm', '-f', 'db', 'other');
    await t.ok('network', 'rm', 'blue', 'green');
    expect((await t.docker(['network', 'inspect', 'blue'])).stderr).toContain('network blue not found');
  });

  it('refuses bad networks', async () => {
    await t.ok('network', 'create', 'twice');
    expect((await t.docker(['network', 'create', 'twice'])).stderr).toContain('network with name twice already exists');
    await t.ok('network', 'rm', 'twice');
    expect((await t.docker(['network', 'create', '--subnet', '10.0.0.0/33', 'bad'])).code).toBe(1);
    expect((await t.docker(['run', '--rm', '--network', 'absent', 'busybox', 'true'])).stderr).toContain(
      'network absent not found',
    );
    expect(await t.ok('ps', '-aq')).toBe('');
  });
});
