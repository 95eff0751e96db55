import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rawRequest } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('networks', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  let nameServer: ChildProcess | undefined;
  afterAll(async () => {
    nameServer?.kill();
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

  it('lists by every filter, and prunes by some', async () => {
    await t.ok('network', 'create', '--label', 'tier=front', '--label', 'plain', 'alpha');
    await t.ok(
      'network',
      'create',
      '--label',
      'tier=back',
      '--internal',
      '--attachable',
      '--ipam-opt',
      'k=v',
      'alphabet',
    );
    const id = await t.ok('network', 'inspect', '-f', '{{.Id}}', 'alpha');
    await t.ok('network', 'create', '--label', 'tier=back', id.slice(0, 12)); // a name that is another's id
    await t.ok('run', '-d', '--name', 'user', '--network', 'alpha', 'busybox', 'sleep', '600');
    const ls = async (...filters: string[]) =>
      (await t.ok('network', 'ls', '--format', '{{.Name}}', ...filters.flatMap((filter) => ['--filter', filter])))
        .split('\n')
        .filter(Boolean);
    const custom = [id.slice(0, 12), 'alpha', 'alphabet'].sort();
    expect((await ls('type=custom')).sort()).toEqual(custom);
    expect((await ls('type=custom', 'type=builtin')).length).toBe(6);
    expect(await ls('name=alpha', 'name=bridge')).toEqual(['alpha', 'alphabet', 'bridge']);
    expect(await ls('name=^alpha$')).toEqual(['alpha']);
    expect(await ls(`id=${id.slice(0, 6)}`)).toEqual(['alpha']);
    expect(await ls('driver=null', 'driver=host')).toEqual(['host', 'none']);
    expect(await ls('label=tier=back', 'name=alpha')).toEqual(['alphabet']);
    expect(await ls('label=tier', 'label=plain')).toEqual(['alpha']);
    expect(await ls('label=tier=side')).toEqual([]);
    expect((await ls('scope=local')).length).toBe(6);
    expect(await ls('scope=swarm')).toEqual([]);
    expect((await ls('dangling=true')).sort()).toEqual([id.slice(0, 12), 'alphabet'].sort());
    expect((await ls('dangling=false')).sort()).toEqual(['alpha', 'bridge', 'host', 'none']);
    for (const [filter, message] of [
      ['dangling=maybe', `invalid value for filter 'dangling', must be "true" (or "1"), or "false" (or "0")`],
      ['type=odd', "invalid filter: 'type'='odd'"],
      ['odd=1', "invalid filter 'odd'"],
    ] as const)
      expect((await t.docker(['network', 'ls', '--filter', filter])).stderr).toContain(message);
    const shown = JSON.parse(await t.ok('network', 'inspect', '--verbose', 'alpha', 'alphabet')) as Record<
      string,
      unknown
    >[];
    const user = await t.ok('inspect', '-f', '{{.Id}}', 'user');
    expect(shown[0]?.['Containers']).toMatchObject({
      [user]: { Name: 'user', MacAddress: expect.stringMatching(/^02:42:/) as string },
    });
    expect(shown[1]).toMatchObject({
      Internal: true,
      Attachable: true,
      Ingress: false,
      Containers: {},
      Labels: { tier: 'back' },
      IPAM: { Driver: 'default', Options: { k: 'v' } },
    });
    const get = async (query: string) => (await rawRequest(t.engine.socket, 'GET', `/networks/alpha?${query}`)).status;
    expect([await get('scope=local'), await get('scope=swarm'), await get('verbose=true')]).toEqual([200, 404, 200]);
    expect(await get('verbose=maybe')).toBe(400);
    expect(await t.ok('network', 'inspect', '-f', '{{.Name}}', id.slice(0, 12))).toBe(id.slice(0, 12)); // names before ids
    expect(await t.ok('network', 'inspect', '-f', '{{.Name}}', id.slice(0, 11))).toBe('alpha');
    const prune = (...filters: string[]) =>
      t.ok('network', 'prune', '-f', ...filters.flatMap((filter) => ['--filter', filter]));
    expect(await prune('until=1h')).toBe('');
    expect(await prune('label!=tier=back')).toBe('');
    expect(await prune('label=tier=back', `label!=nosuch`)).toContain('alphabet');
    const mixed = await t.docker(['network', 'rm', 'nosuch', 'alpha']);
    expect(mixed.stderr).toContain('network nosuch not found');
    expect(mixed.stderr).toContain('network alpha has active endpoints (name:"user" id:"');
    await t.ok('rm', '-f', 'user');
    expect(await t.ok('network', 'rm', 'alpha')).toBe('alpha');
    expect((await ls()).sort()).toEqual(['bridge', 'host', 'none']);
  });

  it('tells of networks and of who is on them', async () => {
    const since = String(Date.now() / 1000);
    await t.ok('network', 'create', 'told');
    await t.ok('run', '-d', '--name', 'teller', 'busybox', 'sleep', '600');
    await t.ok('network', 'connect', 'told', 'teller');
    await t.ok('network', 'disconnect', 'told', 'teller');
    await t.ok('rm', '-f', 'teller');
    await t.ok('network', 'rm', 'told');
    const format = '{{.Action}} {{.Actor.Attributes.type}}{{with .Actor.Attributes.container}} container{{end}}';
    const filters = ['--filter', 'type=network', '--filter', 'network=told', '--format', format];
    await expect
      .poll(() => t.ok('events', '--since', since, '--until', String(Date.now() / 1000), ...filters))
      .toBe('create bridge\nconnect bridge container\ndisconnect bridge container\ndestroy bridge');
  });

  it('makes one network of a name that many ask for, and as many as there are subnets', async () => {
    const create = (body: object) => rawRequest(t.engine.socket, 'POST', '/networks/create', body);
    const same = await Promise.all(Array.from({ length: 8 }, () => create({ Name: 'contested' })));
    expect(same.map(({ status }) => status).sort()).toEqual([201, ...new Array<number>(7).fill(409)]);
    const many = await Promise.all(Array.from({ length: 40 }, (_, index) => create({ Name: `many-${index}` })));
    const failed = many.filter(({ status }) => status !== 201);
    // 31 subnets of Docker's pools, less those of the default bridge, of the contested one and of the wire.
    expect(failed.length).toBeGreaterThanOrEqual(11);
    for (const { status, json } of failed)
      expect([status, json]).toEqual([404, { message: 'all predefined address pools have been fully subnetted' }]);
    expect((await t.ok('network', 'ls', '-q')).split('\n')).toHaveLength(4 + 40 - failed.length);
    await t.ok('network', 'prune', '-f');
    await waitFor(() => !t.namespace.run('ip', ['-o', 'link']).includes(' br-'), { what: 'the bridges to go' });
    const range = { Name: 'range', IPAM: { Config: [{ Subnet: '10.212.0.0/30' }] } };
    expect((await create(range)).status).toBe(201);
    await t.ok('run', '-d', '--name', 'only', '--network', 'range', 'busybox', 'sleep', '600');
    const full = await t.docker(['run', '--rm', '--network', 'range', 'busybox', 'true']);
    expect(full.stderr).toContain("no available IPv4 addresses on this network's address pools: range (");
    await t.ok('rm', '-f', 'only');
    expect(await t.ok('run', '--rm', '--network', 'range', 'busybox', 'hostname', '-i')).toBe('10.212.0.2');
    await t.ok('network', 'rm', 'range');
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('connects and disconnects what it can', async () => {
    await t.ok('network', 'create', '--subnet', '10.213.0.0/24', 'fixed');
    await t.ok('network', 'create', 'loose');
    await t.ok('run', '-d', '--name', 'here', 'busybox', 'sleep', '600');
    await t.ok('create', '--name', 'idle', 'busybox', 'sleep', '600');
    const post = async (path: string, body: object): Promise<[number, string]> => {
      const { status, json } = await rawRequest(t.engine.socket, 'POST', path, body);
      return [status, (json as { message?: string } | undefined)?.message ?? ''];
    };
    const connect = (name: string, Container: string, EndpointConfig: object = {}) =>
      post(`/networks/${name}/connect`, { Container, EndpointConfig });
    const disconnect = (name: string, Container: string) => post(`/networks/${name}/disconnect`, { Container });
    const at = (IPv4Address: string) => ({ IPAMConfig: { IPv4Address } });
    const id = await t.ok('inspect', '-f', '{{.Id}}', 'here');
    expect(await connect('fixed', 'here', at('10.213.0.9'))).toEqual([200, '']);
    expect(await connect('fixed', 'here')).toEqual([403, 'endpoint with name here already exists in network fixed']);
    // A stopped container takes other settings for a network that it is on.
    expect(await connect('fixed', 'idle', at('10.213.0.20'))).toEqual([200, '']);
    expect(await connect('fixed', 'idle', at('10.213.0.21'))).toEqual([200, '']);
    await t.ok('start', 'idle');
    expect(await address('idle', 'fixed')).toBe('10.213.0.21');
    const invalid = 'invalid endpoint settings:\n';
    for (const [answer, status, message] of [
      [connect('nosuch', 'here'), 404, 'network nosuch not found'],
      [connect('loose', 'nosuch'), 404, 'No such container: nosuch'],
      [connect('loose', ''), 400, 'invalid name or ID supplied: ""'],
      [connect('loose', 'here', { MacAddress: 'zz' }), 400, 'invalid MAC address: zz'],
      [connect('loose', 'here', { MacAddress: '01:00:00:00:00:01' }), 400, 'invalid MAC address: 01:00:00:00:00:01'],
      [
        connect('loose', 'here', at('10.213.0.8')),
        400,
        `${invalid}user specified IP address is supported only when connecting to networks with user configured subnets`,
      ],
      [connect('host', 'here'), 400, 'container cannot be disconnected from host network or connected to host network'],
      [disconnect('nosuch', 'here'), 404, 'network nosuch not found'],
      [disconnect('loose', 'here'), 400, `container ${id} is not connected to network loose`],
      [disconnect('fixed', 'nosuch'), 404, 'No such container: nosuch'],
    ] as const)
      expect(await answer).toEqual([status, message]);
    const run = async (...args: string[]) => (await t.docker(['run', '--rm', ...args, 'busybox', 'true'])).stderr;
    expect(await run('--network', 'fixed', '--ip', '10.213.0.9')).toContain('Address already in use');
    expect(await run('--network', 'fixed', '--ip', '10.214.0.9')).toContain('no configured subnet contains IP address');
    for (const mode of ['host', 'none', 'bridge'])
      expect(await run('--network', mode, '--ip', '10.213.0.7')).toContain(
        'user specified IP address is supported on user defined networks only',
      );
    expect(await t.ok('network', 'inspect', '-f', '{{len .Containers}}', 'loose')).toBe('0');
    await t.ok('rm', '-f', 'here', 'idle');
    await t.ok('network', 'rm', 'fixed', 'loose');
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('answers names as the options of containers say, and follows their changes', async () => {
    // A name server of the machine: nothing in corp.test, and one address for everything else.
    const script = `const u = require('dgram').createSocket('udp4');
      u.on('message', (q, from) => {
        const [code, count] = q.includes('corp') ? [3, 0] : [0, 1];
        const answer = Buffer.from(count ? [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 203, 0, 113, 7] : []);
        const header = Buffer.from([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        u.send(Buffer.concat([q.subarray(0, 2), header, q.subarray(12, q.indexOf(0, 12) + 5), answer]), from.port, from.address);
      });
      u.bind(53, '127.0.0.5', () => console.log('ready'));`;
    nameServer = t.namespace.spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    if (nameServer.stdout) await once(nameServer.stdout, 'data');
    await t.ok('network', 'create', 'names');
    await t.ok('network', 'create', 'others');
    const sleeper = ['busybox', 'sleep', '600'];
    for (const name of ['w1', 'w2', 'w3'])
      await t.ok('run', '-d', '--name', name, '--network', 'names', '--network-alias', 'worker', ...sleeper);
    const options = ['--dns', '127.0.0.5', '--dns-search', 'corp.test', '--dns-opt', 'ndots:1', '--link', 'w1:first'];
    await t.ok('run', '-d', '--name', 'asker', '--network', 'names', ...options, ...sleeper);
    expect(await t.ok('exec', 'asker', 'cat', '/etc/resolv.conf')).toBe(
      'nameserver 127.0.0.11\nsearch corp.test\noptions ndots:1',
    );
    const lookup = async (name: string): Promise<string[]> => {
      const { stdout } = await t.docker(['exec', 'asker', 'nslookup', name]);
      const found = stdout.matchAll(/^Address: (\d+\.\d+\.\d+\.\d+)$/gm);
      return [...new Set([...found].map(([, address]) => address ?? ''))].sort();
    };
    const workers = await Promise.all(['w1', 'w2', 'w3'].map((name) => address(name, 'names')));
    expect(await lookup('worker.')).toEqual([...workers].sort());
    expect(await lookup('first.')).toEqual([workers[0]]);
    expect(await lookup('W2.names')).toEqual([workers[1]]);
    expect(await lookup('example.test')).toEqual(['203.0.113.7']); // the server that it was given
    expect(await lookup('nobody.')).toEqual([]); // not asked outside: names without dots are completed
    await t.ok('network', 'disconnect', 'names', 'w1');
    await t.ok('stop', '-t', '0', 'w2');
    expect(await lookup('worker.')).toEqual([workers[2]]);
    await t.ok('rename', 'w3', 'only');
    expect(await lookup('only.')).toEqual([workers[2]]);
    expect(await lookup('w3.')).toEqual([]);
    await t.ok('network', 'connect', '--alias', 'late', 'others', 'w1');
    expect(await lookup('late.')).toEqual([]); // not a network of the asker
    await t.ok('network', 'connect', 'others', 'asker');
    expect(await lookup('late.')).toEqual([await address('w1', 'others')]);
    await t.ok('rm', '-f', 'w1', 'w2', 'only', 'asker');
    await t.ok('network', 'rm', 'names', 'others');
  });

  it('refuses bad networks', async () => {
    await t.ok('network', 'create', 'twice');
    expect((await t.docker(['network', 'create', 'twice'])).stderr).toContain('network with name twice already exists');
    await t.ok('network', 'rm', 'twice');
    expect((await t.docker(['network', 'create', '--subnet', '10.0.0.0/33', 'bad'])).code).toBe(1);
    await t.ok('network', 'create', '--subnet', '10.215.0.0/24', 'taken');
    const create = async (body: object): Promise<[number, string]> => {
      const { status, json } = await rawRequest(t.engine.socket, 'POST', '/networks/create', { Name: 'bad', ...body });
      return [status, (json as { message: string }).message];
    };
    const config = 'invalid network config:\n';
    for (const [body, status, message] of [
      [
        { IPAM: { Config: [{ Subnet: '10.215.0.128/25' }] } },
        403,
        'invalid pool request: Pool overlaps with other one on this address space',
      ],
      [
        { IPAM: { Config: [{ Subnet: '10.0.0.0/33' }] } },
        400,
        `${config}invalid subnet 10.0.0.0/33: invalid CIDR block notation`,
      ],
      ...['127.0.0.0/16', '224.0.0.0/24'].map(
        (Subnet, index) =>
          [
            { IPAM: { Config: [{ Subnet }] } },
            400,
            `${config}${['loopback', 'multicast'][index]} subnet '${Subnet}' is not allowed`,
          ] as const,
      ),
      [
        { IPAM: { Config: [{ Subnet: '10.216.0.0/24' }, { Subnet: '10.217.0.0/24' }] } },
        403,
        "bridge driver doesn't support multiple subnets",
      ],
      [
        { IPAM: { Config: [{ Subnet: '10.216.0.0/24', Gateway: '10.216.0.0' }] } },
        400,
        `${config}failed to allocate gateway (10.216.0.0): Address already in use`,
      ],
      [
        { IPAM: { Config: [{ Subnet: '10.216.0.0/24', Gateway: '10.216.0.255' }] } },
        400,
        `${config}failed to allocate gateway (10.216.0.255): Address already in use`,
      ],
      [
        {
          IPAM: {
            Config: [{ Subnet: '10.216.0.0/24', Gateway: '10.216.0.9', AuxiliaryAddresses: { x: '10.216.0.9' } }],
          },
        },
        400,
        `${config}failed to allocate secondary ip address (x:10.216.0.9): Address already in use`,
      ],
      [
        { EnableIPv6: true, IPAM: { Config: [{ Subnet: 'ff02::/64' }] } },
        400,
        `${config}multicast subnet 'ff02::/64' is not allowed`,
      ],
      [
        { EnableIPv6: true, IPAM: { Config: [{ Subnet: 'fe80::/80' }] } },
        400,
        `${config}'fe80::/80' clashes with the Link-Local prefix 'fe80::/64'`,
      ],
      [
        { EnableIPv6: true, IPAM: { Config: [{ Subnet: '::ffff:a00:0/120' }] } },
        400,
        `${config}'::ffff:a00:0/120' is not a valid IPv6 subnet`,
      ],
      [{ IPAM: { Config: [{ Subnet: '0.0.0.0/0' }] } }, 400, `${config}ipv4 pool is empty`],
      [
        { Options: { 'com.docker.network.bridge.name': 'lo' } },
        500,
        'cannot create network bad: existing interface lo is not a bridge',
      ],
      [{ IPAM: { Driver: 'bogus' } }, 404, 'plugin "bogus" not found'],
      [{ IPAM: { Driver: 'null' } }, 400, 'ipv4 pool is empty'],
      [{ Driver: 'bogus' }, 404, 'plugin "bogus" not found'],
      [{ Driver: 'host' }, 403, 'only one instance of "host" network is allowed'],
      [{ Ingress: true }, 403, 'Ingress network can only be global scope network'],
      [{ Scope: 'swarm' }, 403, 'cannot create a swarm scoped network when swarm is not active'],
      [{ Name: 'none' }, 403, 'operation is not permitted on predefined none network'],
      [{ Name: '' }, 400, 'invalid name: name is empty'],
    ] as const)
      expect(await create(body)).toEqual([status, message]);
    await t.ok('network', 'rm', 'taken');
    expect(await t.ok('network', 'ls', '-q', '--filter', 'type=custom')).toBe('');
    expect((await t.docker(['run', '--rm', '--network', 'absent', 'busybox', 'true'])).stderr).toContain(
      'network absent not found',
    );
    expect(await t.ok('ps', '-aq')).toBe('');
  });
});
