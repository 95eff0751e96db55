import { writeFileSync } from 'node:fs';
import { waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectNeighbour, type NeighbourMachine } from './neighbour-machine.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

// One engine for all of it: it starts again with other options.
describe("the engine's options for networks", () => {
  let t: TestEngine;
  let neighbour: NeighbourMachine;
  beforeAll(async () => {
    t = await startTestEngine();
    neighbour = connectNeighbour(t.namespace);
  });
  afterAll(async () => {
    await neighbour[Symbol.asyncDispose]();
    await t[Symbol.asyncDispose]();
  });
  const restartWith = async (daemonJson: object, meanwhile: () => void = () => undefined): Promise<void> => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
    await t.ok('network', 'prune', '-f');
    await t.engine.stop();
    writeFileSync(t.engine.configFile, JSON.stringify(daemonJson));
    meanwhile();
    await t.engine.start();
  };
  const ip = (...args: string[]) => t.namespace.run('ip', args);
  const script = 'hostname > /tmp/index.html; httpd -p 81 -h /tmp; exec httpd -f -p 80 -h /tmp';
  const web = async (name: string, ...args: string[]): Promise<void> => {
    await t.ok('run', '-d', '--name', name, '-h', name, ...args, 'busybox', 'sh', '-c', script);
    await waitFor(async () => (await t.docker(['exec', name, 'wget', '-qO-', 'http://localhost/'])).code === 0, {
      what: `the server of ${name}`,
    });
  };
  const inside = (name: string, ...command: string[]) => t.ok('exec', name, ...command);
  const fetch = (url: string) => t.namespace.run('curl', ['-gsS', '--max-time', '5', url]).trim();
  const ownTables = () =>
    t.namespace
      .run('nft', ['list', 'tables'])
      .split('\n')
      .filter((line) => line.includes('flotilla_'));

  it('a bridge of somebody else, ranges, gateways, dns, addresses for ports and names', async () => {
    const options = {
      bridge: 'brown',
      'fixed-cidr': '10.61.0.128/25',
      'default-gateway': '10.61.0.5',
      ipv6: true,
      'fixed-cidr-v6': 'fd61::/64',
      'default-gateway-v6': 'fd61::5',
      mtu: 1400,
      icc: false,
      ip: '127.0.0.1',
      dns: ['192.0.2.53'],
      'dns-search': ['example.test'],
      'dns-opts': ['timeout:3'],
      'host-gateway-ips': ['10.9.9.9', 'fd09::9'],
    };
    await restartWith(options, () => {
      ip('link', 'add', 'brown', 'type', 'bridge');
      for (const address of ['10.60.0.1/24', '10.61.0.129/24']) ip('address', 'add', address, 'dev', 'brown');
    });
    expect(JSON.parse(await t.ok('network', 'inspect', '-f', '{{json .IPAM.Config}}', 'bridge'))).toEqual([
      {
        Subnet: '10.61.0.0/24',
        IPRange: '10.61.0.128/25',
        Gateway: '10.61.0.129',
        AuxiliaryAddresses: { DefaultGatewayIPv4: '10.61.0.5' },
      },
      { Subnet: 'fd61::/64', Gateway: 'fd61::1', AuxiliaryAddresses: { DefaultGatewayIPv6: 'fd61::5' } },
    ]);
    await web('web', '-p', '18030:80', '--add-host', 'up:host-gateway');
    const address = await t.ok('inspect', '-f', '{{.NetworkSettings.IPAddress}} {{.NetworkSettings.Gateway}}', 'web');
    expect(address).toBe('10.61.0.128 10.61.0.5');
    expect(await inside('web', 'ip', 'route')).toContain('default via 10.61.0.5 dev eth0');
    expect(await inside('web', 'ip', '-6', 'route')).toContain('default via fd61::5 dev eth0');
    expect(await inside('web', 'cat', '/sys/class/net/eth0/mtu')).toBe('1400');
    expect(await t.ok('port', 'web', '80')).toBe('127.0.0.1:18030');
    expect(fetch('http://127.0.0.1:18030/')).toBe('web');
    expect(await inside('web', 'cat', '/etc/resolv.conf')).toBe(
      'nameserver 192.0.2.53\nsearch example.test\noptions timeout:3',
    );
    expect(await inside('web', 'grep', 'up', '/etc/hosts')).toBe('10.9.9.9\tup\nfd09::9\tup');
    const other = await t.docker(['run', '--rm', 'busybox', 'wget', '-T', '1', '-qO-', 'http://10.61.0.128/']);
    expect(other.code).not.toBe(0); // icc
    await t.ok('network', 'create', 'own');
    expect(await t.ok('run', '--rm', '--network', 'own', 'busybox', 'cat', '/sys/class/net/eth0/mtu')).toBe('1500');
    // Running containers keep what they have.
    await t.engine.stop();
    writeFileSync(t.engine.configFile, JSON.stringify({ bip: '10.62.0.1/24' }));
    await t.engine.start();
    expect(await t.ok('network', 'inspect', '-f', '{{(index .IPAM.Config 0).Subnet}}', 'bridge')).toBe('10.61.0.0/24');
    expect(fetch('http://127.0.0.1:18030/')).toBe('web');
  });

  it('own addresses and pools, options of new networks, direct routing and marks', async () => {
    const marking =
      'table inet marking { chain pre { type filter hook prerouting priority mangle; tcp dport 81 meta mark set 0x17; }; }';
    await restartWith(
      {
        bip: '10.62.0.1/24',
        ipv6: true,
        bip6: 'fd62::1/64',
        'default-address-pools': [
          { base: '10.63.0.0/16', size: 24 },
          { base: 'fd63::/48', size: 64 },
        ],
        'default-network-opts': {
          bridge: { 'com.docker.network.driver.mtu': '1300', 'com.docker.network.enable_ipv6': 'true' },
        },
        'allow-direct-routing': true,
        'bridge-accept-fwmark': '0x7/0xf',
        'ip-forward-no-drop': true,
        'ip-masq': false,
      },
      () => void t.namespace.run('nft', [marking]),
    );
    expect(ip('-o', 'address', 'show', 'brown')).toContain('10.61.0.129/24'); // left as somebody else's
    ip('link', 'delete', 'brown');
    const shown = ip('-o', 'address', 'show', 'flotilla0');
    expect(shown).toContain('10.62.0.1/24');
    expect(shown).toContain('fd62::1/64');
    await t.ok('network', 'create', 'fresh');
    expect(
      await t.ok('network', 'inspect', '-f', '{{range .IPAM.Config}}{{.Subnet}} {{end}}{{json .Options}}', 'fresh'),
    ).toBe('10.63.0.0/24 fd63::/64 {"com.docker.network.driver.mtu":"1300","com.docker.network.enable_ipv6":"true"}');
    await t.ok('network', 'create', '--ipv4=true', '--ipv6=false', '-o', 'com.docker.network.driver.mtu=1280', 'said');
    expect(
      await t.ok('network', 'inspect', '-f', '{{range .IPAM.Config}}{{.Subnet}}{{end}} {{.EnableIPv6}}', 'said'),
    ).toBe('10.63.1.0/24 false');
    await web('web', '--network', 'fresh', '-p', '18031:80');
    expect(await inside('web', 'cat', '/sys/class/net/eth0/mtu')).toBe('1300');
    const address = await t.ok('inspect', '-f', '{{.NetworkSettings.Networks.fresh.IPAddress}}', 'web');
    expect(neighbour.get(`http://${address}/`)).toBe('web'); // published, so open to all
    expect(neighbour.get(`http://${address}:81/`)).toBe('web'); // marked
    await t.ok('exec', '-d', 'web', 'httpd', '-f', '-p', '82', '-h', '/tmp');
    await waitFor(async () => (await t.docker(['exec', 'web', 'wget', '-qO-', 'http://localhost:82/'])).code === 0, {
      what: 'the other server',
    });
    expect(neighbour.get(`http://${address}:82/`)).toBe('');
    await neighbour.tellSource(9000);
    await t.ok('run', '-d', '--name', 'plain', 'busybox', 'sleep', '600');
    const own = await t.ok('inspect', '-f', '{{.NetworkSettings.IPAddress}}', 'plain');
    expect(await inside('plain', 'nc', neighbour.address.neighbour, '9000')).toBe(own); // ip-masq
    t.namespace.run('nft', ['delete table inet marking']);
  });

  it('no rules at all, and no forwarding of our own', async () => {
    await restartWith({ iptables: false, ip6tables: false, 'ip-forward': false, ipv6: true }, () => {
      t.namespace.run('sysctl', ['-qw', 'net.ipv4.ip_forward=0', 'net.ipv6.conf.all.forwarding=0']);
    });
    await web('web', '-p', '18032:80');
    expect(ownTables()).toEqual([]);
    expect(t.namespace.run('sysctl', ['-n', 'net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'])).toBe('0\n0\n');
    for (const host of ['127.0.0.1', neighbour.address.engine, '[::1]', `[${neighbour.address.engineV6}]`])
      expect(fetch(`http://${host}:18032/`)).toBe('web');
    expect(neighbour.get(`http://${neighbour.address.engine}:18032/`)).toBe('web');
  });

  it('rules for one family, and no bridge', async () => {
    await restartWith({ ip6tables: false, bridge: 'none' });
    expect(await t.ok('network', 'ls', '--format', '{{.Name}}')).toBe('host\nnone');
    expect((await t.docker(['run', '--rm', 'busybox', 'true'])).stderr).toContain('network bridge not found');
    expect(ip('-o', 'link')).not.toContain('flotilla0');
    await t.ok('network', 'create', '--ipv6', '--subnet', '10.64.0.0/24', '--subnet', 'fd64::/64', 'two');
    await web('web', '--network', 'two', '-p', '18033:80');
    expect(ownTables()).toHaveLength(1);
    const direct = (address: string) => neighbour.get(`http://${address}:81/`);
    expect(direct('10.64.0.2')).toBe('');
    await waitFor(() => direct('[fd64::2]') === 'web', { what: 'IPv6, which nobody filters' });
    for (const host of [neighbour.address.engine, `[${neighbour.address.engineV6}]`])
      expect(neighbour.get(`http://${host}:18033/`)).toBe('web');
  });
});
