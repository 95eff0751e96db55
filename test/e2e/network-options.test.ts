import { waitFor } from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { connectNeighbour, type NeighbourMachine } from './neighbour-machine.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

describe('drivers and options of networks', () => {
  let t: TestEngine;
  let neighbour: NeighbourMachine;
  const lacks = {} as Record<'macvlan' | 'ipvlan', boolean>;
  beforeAll(async () => {
    t = await startTestEngine();
    neighbour = connectNeighbour(t.namespace);
    t.namespace.run('ip', ['link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'lan1']);
    for (const name of ['lan0', 'lan1']) t.namespace.run('ip', ['link', 'set', name, 'up']);
    for (const kind of ['macvlan', 'ipvlan'] as const) {
      try {
        t.namespace.run('ip', ['link', 'add', 'link', 'lan1', 'name', 'probe0', 'type', kind]);
        t.namespace.run('ip', ['link', 'delete', 'probe0']);
        lacks[kind] = false;
      } catch {
        lacks[kind] = true;
      }
    }
  });
  afterEach(async () => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
    await t.ok('network', 'prune', '-f');
    const left = (await t.ok('network', 'ls', '-q', '--filter', 'type=custom')).split('\n').filter(Boolean);
    if (left.length > 0) await t.ok('network', 'rm', ...left);
  });
  afterAll(async () => {
    await neighbour[Symbol.asyncDispose]();
    t.namespace.run('ip', ['link', 'delete', 'lan0']);
    await t[Symbol.asyncDispose]();
  });
  const web = async (name: string, ...args: string[]): Promise<string> => {
    await t.ok('run', '-d', '--name', name, '-h', name, ...args, 'busybox', 'sh', '-c', script);
    await waitFor(async () => (await t.docker(['exec', name, 'wget', '-qO-', 'http://localhost/'])).code === 0, {
      what: `the server of ${name}`,
    });
    return t.ok('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', name);
  };
  const script = 'hostname > /tmp/index.html; httpd -p 81 -h /tmp; exec httpd -f -p 80 -h /tmp';
  const inside = (name: string, ...command: string[]) => t.ok('exec', name, ...command);
  const refusal = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await t.docker(args);
    expect(code).not.toBe(0);
    return stderr.split('\n').slice(0, 2).join('\n');
  };
  const bridge = (option: string) => `com.docker.network.bridge.${option}`;

  it('macvlan: containers on a link of the host talk, through a kill of the network service too', async (c) => {
    if (lacks.macvlan) c.skip('this kernel has no macvlan');
    await t.ok('network', 'create', '-d', 'macvlan', '-o', 'parent=lan0', '--subnet', '10.40.0.0/24', '--ipv6', 'lan');
    const address = await web('web', '--network', 'lan', '--ip', '10.40.0.80', '-p', '18080:80');
    expect(address).toBe('10.40.0.80');
    expect(await t.ok('port', 'web')).toBe('');
    await t.ok('run', '-d', '--name', 'client', '--network', 'lan', 'busybox', 'sleep', '600');
    const ask = () => inside('client', 'wget', '-qO-', 'http://web/');
    expect(await ask()).toBe('web');
    const v6 = await t.ok('inspect', '-f', '{{.NetworkSettings.Networks.lan.GlobalIPv6Address}}', 'web');
    expect(await inside('client', 'wget', '-qO-', `http://[${v6}]/`)).toBe('web');
    const before = (await t.engine.services()).find(({ service }) => service === 'network');
    killProcess(before?.pid ?? 0);
    await waitFor(
      async () => {
        const now = (await t.engine.services()).find(({ service }) => service === 'network');
        return now?.health === 'SERVING' && now.pid !== before?.pid;
      },
      { what: 'the network service to be back' },
    );
    expect(await ask()).toBe('web');
    await t.ok('network', 'connect', 'bridge', 'client');
    await t.ok('network', 'disconnect', 'lan', 'client');
    expect(await inside('client', 'ls', '/sys/class/net')).toBe('eth1\nlo');
    expect(await refusal('network', 'create', '-d', 'macvlan', '-o', 'parent=nosuch0', 'x')).toContain(
      'invalid subinterface vlan name nosuch0, example formatting is eth0.10',
    );
  });

  it('ipvlan: works, or one error says that the kernel cannot', async () => {
    const args = ['network', 'create', '-d', 'ipvlan', '-o', 'parent=lan0', '--subnet', '10.41.0.0/24', 'iplan'];
    if (lacks.ipvlan) {
      expect(await refusal(...args)).toBe('Error response from daemon: this kernel has no links of type ipvlan\n');
      expect(await t.ok('network', 'ls', '-q', '--filter', 'driver=ipvlan')).toBe('');
      return;
    }
    await t.ok(...args);
    await web('web', '--network', 'iplan');
    expect(await t.ok('run', '--rm', '--network', 'iplan', 'busybox', 'wget', '-qO-', 'http://web/')).toBe('web');
  });

  it('configuration networks are taken from, and nothing else', async () => {
    const create = (...args: string[]) => ['network', 'create', ...args];
    await t.ok(
      ...create('--config-only', '--subnet', '10.42.0.0/24', '-o', `${bridge('name')}=brcfg`, '--label', 'l=1', 'cfg'),
    );
    expect(await t.ok('network', 'inspect', '-f', '{{.Driver}} {{.Scope}} {{.ConfigOnly}}', 'cfg')).toBe(
      'null local true',
    );
    const forbidden = 'Network operator fields like [ ingress | internal | attachable | scope ] are not supported.';
    for (const flag of ['--internal', '--attachable', '--scope=local'])
      expect(await refusal(...create('--config-only', flag, 'x'))).toContain(forbidden);
    expect(await refusal(...create('--config-only', '--config-from', 'cfg', 'x'))).toContain(
      'a configuration network cannot depend on another configuration network',
    );
    for (const own of [['--subnet', '10.43.0.0/24'], ['--label', 'a=b'], ['--ipv6'], ['--ipv4=false']])
      expect(await refusal(...create('--config-from', 'cfg', ...own, 'x'))).toContain(
        'user-specified configurations are not supported if the network depends on a configuration network',
      );
    expect(await refusal(...create('--config-from', 'cfg', '-o', 'a=b', 'x'))).toContain(
      'network driver options are not supported if the network depends on a configuration network',
    );
    for (const absent of ['nosuch', 'bridge'])
      expect(await refusal(...create('--config-from', absent, 'x'))).toContain(
        `configuration network "${absent}" does not exist`,
      );
    await t.ok(...create('--config-from', 'cfg', '--internal', 'real'));
    expect(
      await t.ok(
        'network',
        'inspect',
        '-f',
        '{{.Driver}} {{.Internal}} {{.ConfigFrom.Network}} {{json .Labels}}',
        'real',
      ),
    ).toBe('bridge true cfg {"l":"1"}');
    expect(await t.ok('run', '--rm', '--network', 'real', 'busybox', 'ip', '-4', '-o', 'addr')).toContain(
      '10.42.0.2/24',
    );
    t.namespace.run('ip', ['link', 'show', 'brcfg']);
    expect(await refusal('network', 'rm', 'cfg')).toContain('configuration network "cfg" is in use');
    expect(await refusal('run', '--rm', '--network', 'cfg', 'busybox', 'true')).toContain(
      'cannot create endpoint on configuration-only network',
    );
    expect(await t.ok('network', 'prune', '-f')).toBe('Deleted Networks:\nreal\n');
    expect(await t.ok('network', 'ls', '--filter', 'name=cfg', '--format', '{{.Name}}')).toBe('cfg');
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('endpoints have priorities, names and settings of their interfaces', async () => {
    await t.ok('network', 'create', '--subnet', '10.44.0.0/24', '--ipv6', '--subnet', 'fd44::/64', 'a');
    await t.ok('network', 'create', '--subnet', '10.45.0.0/24', '--ipv6', '--subnet', 'fd45::/64', 'b');
    const sysctls = 'com.docker.network.endpoint.sysctls';
    const b = `name=b,gw-priority=1,driver-opt=com.docker.network.endpoint.ifname=eth0,"driver-opt=${sysctls}=net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=1"`;
    await t.ok('run', '-d', '--name', 'cc', '--network', 'a', '--network', b, 'busybox', 'sleep', '600');
    const routes = async (): Promise<string[]> => {
      const both = (await inside('cc', 'ip', 'route')) + '\n' + (await inside('cc', 'ip', '-6', 'route'));
      return both.split('\n').flatMap((line) => /^default via (\S+) dev (\S+)/.exec(line)?.slice(1).join(' ') ?? []);
    };
    expect(await routes()).toEqual(['10.45.0.1 eth0', 'fd45::1 eth0']);
    expect(await inside('cc', 'cat', '/proc/sys/net/ipv4/conf/eth0/log_martians')).toBe('1');
    expect(await inside('cc', 'cat', '/proc/sys/net/ipv4/conf/eth1/log_martians')).toBe('0');
    expect(await t.ok('inspect', '-f', '{{.NetworkSettings.Networks.b.GwPriority}}', 'cc')).toBe('1');
    await t.ok('network', 'disconnect', 'b', 'cc');
    expect(await routes()).toEqual(['10.44.0.1 eth1', 'fd44::1 eth1']);
    await t.ok('network', 'connect', '--gw-priority', '-1', 'b', 'cc');
    expect(await routes()).toEqual(['10.44.0.1 eth1', 'fd44::1 eth1']);
    await t.ok('network', 'disconnect', 'b', 'cc');
    const without = ['--rm', '--network', 'b', '--sysctl', 'net.ipv6.conf.all.disable_ipv6=1'];
    expect(await t.ok('run', ...without, 'busybox', 'ip', '-o', 'address', 'show', 'eth0')).not.toContain('inet6');
    const off = `${sysctls}=net.ipv6.conf.IFNAME.disable_ipv6=1`;
    await t.ok('network', 'connect', '--gw-priority', '5', '--driver-opt', off, 'b', 'cc');
    expect(await routes()).toEqual(['10.45.0.1 eth0', 'fd44::1 eth1']);
    expect(await t.ok('inspect', '-f', '{{.NetworkSettings.Networks.b.GlobalIPv6Address}}', 'cc')).toBe('');
    await t.ok('network', 'disconnect', 'b', 'cc');
    await t.ok('network', 'connect', '--link-local-ip', '169.254.8.8', '--link-local-ip', 'fe80::8', 'b', 'cc');
    const addresses = await inside('cc', 'ip', '-o', 'address', 'show', 'eth0');
    for (const address of ['169.254.8.8/16', 'fe80::8/64']) expect(addresses).toContain(address);
    await t.ok('network', 'disconnect', 'b', 'cc');
    for (const address of ['0.0.0.0', '::', '10.45.0.1', 'no address'])
      expect(await refusal('network', 'connect', '--link-local-ip', address, 'b', 'cc')).toContain('invalid');
    const connect = (option: string) => refusal('network', 'connect', '--driver-opt', option, 'b', 'cc');
    expect(await connect(`${sysctls}=net.ipv4.conf.eth0.forwarding=1`)).toContain('invalid endpoint settings');
    expect(await connect(`${sysctls}=net.ipv4.conf.IFNAME.../../../kernel/x=1`)).toContain('invalid endpoint settings');
    expect(await connect(`${sysctls}=net.ipv4.conf.IFNAME.nosuch=1`)).toContain('cannot set net.ipv4.conf.eth0.nosuch');
    expect(await connect('com.docker.network.endpoint.ifname=eth1')).toContain('invalid endpoint settings');
    expect(await connect('com.docker.network.endpoint.ifname=a/b')).toContain('invalid endpoint settings');
    expect(await inside('cc', 'ls', '/sys/class/net')).toBe('eth1\nlo');
    expect(await t.ok('network', 'inspect', '-f', '{{len .Containers}}', 'b')).toBe('0');
  });

  it('gateway modes: nat, nat-unprotected and routed, from another machine', async () => {
    await neighbour.tellSource(9000);
    const source = (name: string, address = neighbour.address.neighbour) => inside(name, 'nc', address, '9000');
    for (const [mode, subnet] of [
      ['nat', '10.50.0.0/24'],
      ['nat-unprotected', '10.51.0.0/24'],
      ['routed', '10.52.0.0/24'],
    ] as const)
      await t.ok('network', 'create', '--subnet', subnet, '-o', `${bridge('gateway_mode_ipv4')}=${mode}`, mode);
    const nat = await web('nat1', '--network', 'nat', '-p', '18001:80');
    const open = await web('open1', '--network', 'nat-unprotected', '-p', '18002:80');
    const routed = await web('routed1', '--network', 'routed', '-p', '18003:80');
    const host = neighbour.address.engine;
    expect(neighbour.get(`http://${host}:18001/`)).toBe('nat1');
    expect(neighbour.get(`http://${nat}/`)).toBe('');
    expect(neighbour.get(`http://${host}:18002/`)).toBe('open1');
    expect(neighbour.get(`http://${open}/`)).toBe('open1');
    expect(neighbour.get(`http://${open}:81/`)).toBe('open1');
    expect(neighbour.get(`http://${routed}/`)).toBe('routed1');
    expect(neighbour.get(`http://${routed}:81/`)).toBe('');
    expect(neighbour.get(`http://${host}:18003/`)).toBe('');
    neighbour.namespace.run('/bin/busybox', ['ping', '-c', '1', '-W', '2', routed]);
    expect(await source('nat1')).toBe(host);
    expect(await source('routed1')).toBe(routed);
    expect(await t.ok('inspect', '-f', '{{json .NetworkSettings.Ports}}', 'routed1')).toBe(
      '{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":""}]}',
    );
    expect(await t.ok('ps', '--filter', 'name=^routed1$', '--format', '{{.Ports}}')).toBe('80/tcp');
    // The port of the host was never held: somebody else may have it.
    await web('nat2', '--network', 'nat', '-p', '18003:80');
    expect(neighbour.get(`http://${host}:18003/`)).toBe('nat2');
    await t.ok('rm', '-f', 'routed1');
    await t.ok(
      'run',
      '-d',
      '--name',
      'routed2',
      '--network',
      'routed',
      '--ip',
      routed,
      'busybox',
      'httpd',
      '-f',
      '-p',
      '80',
    );
    expect(neighbour.get(`http://${routed}/`)).toBe('');
  });

  it('isolated, inhibit_ipv4, trusted interfaces and host addresses', async () => {
    await neighbour.tellSource(9001);
    t.namespace.run('ip', ['address', 'add', '192.0.2.9/32', 'dev', neighbour.wire]);
    const on = (bridgeName: string, ...options: string[]) => [
      '-o',
      `${bridge('name')}=${bridgeName}`,
      ...options.flatMap((o) => ['-o', o]),
    ];
    expect(await refusal('network', 'create', '-o', `${bridge('gateway_mode_ipv4')}=isolated`, 'x')).toContain(
      "gateway mode 'isolated' can only be used for an internal network",
    );
    await t.ok(
      'network',
      'create',
      '--internal',
      '--subnet',
      '10.53.0.0/24',
      ...on('briso', `${bridge('gateway_mode_ipv4')}=isolated`),
      'iso',
    );
    await t.ok(
      'network',
      'create',
      '--subnet',
      '10.54.0.0/24',
      ...on('brinh', `${bridge('inhibit_ipv4')}=true`),
      'inh',
    );
    await t.ok(
      'network',
      'create',
      '--subnet',
      '10.55.0.0/24',
      ...on(
        'brtru',
        `${bridge('trusted_host_interfaces')}=${neighbour.wire}`,
        'com.docker.network.host_ipv4=192.0.2.9',
      ),
      'tru',
    );
    const addresses = (link: string) => t.namespace.run('ip', ['-4', '-o', 'address', 'show', link]);
    expect(await web('iso1', '--network', 'iso')).toBe('10.53.0.1');
    expect(addresses('briso')).toBe('');
    expect(await t.ok('run', '--rm', '--network', 'iso', 'busybox', 'wget', '-qO-', 'http://iso1/')).toBe('iso1');
    await t.ok('run', '-d', '--name', 'inh1', '--network', 'inh', 'busybox', 'sleep', '600');
    expect(addresses('brinh')).toBe('');
    expect(await inside('inh1', 'ip', 'route')).toContain('default via 10.54.0.1');
    const trusting = await web('tru1', '--network', 'tru', '-p', '18010:80');
    expect(neighbour.get(`http://${trusting}/`)).toBe('tru1');
    expect(neighbour.get(`http://${trusting}:81/`)).toBe('');
    expect(await inside('tru1', 'nc', neighbour.address.neighbour, '9001')).toBe('192.0.2.9');
  });

  it('other options of the bridge driver, and what it refuses', async () => {
    await t.ok(
      ...['network', 'create', '--subnet', '10.56.0.0/24', '--aux-address', 'DefaultGatewayIPv4=10.56.0.77'],
      ...[
        '-o',
        `${bridge('name')}=brown`,
        '-o',
        `${bridge('enable_icc')}=false`,
        '-o',
        'com.docker.network.driver.mtu=1400',
      ],
      ...['-o', `${bridge('enable_ip_masquerade')}=false`, '-o', 'com.docker.network.container_iface_prefix=lan'],
      ...['-o', `${bridge('host_binding_ipv4')}=127.0.0.1`, '-o', 'unknown=kept', 'own'],
    );
    const address = await web('web', '--network', 'own', '-p', '18020:80');
    expect(await t.ok('port', 'web', '80')).toBe('127.0.0.1:18020');
    expect(await inside('web', 'ip', 'route')).toContain('default via 10.56.0.77 dev lan0');
    expect(await inside('web', 'cat', '/sys/class/net/lan0/mtu')).toBe('1400');
    const neighbourly = await t.docker([
      'run',
      '--rm',
      '--network',
      'own',
      'busybox',
      'wget',
      '-T',
      '1',
      '-qO-',
      `http://${address}/`,
    ]);
    expect(neighbourly.code).not.toBe(0);
    expect(await t.ok('network', 'inspect', '-f', '{{index .Options "unknown"}}', 'own')).toBe('kept');
    const families = (...args: string[]) => ['network', 'create', ...args];
    await t.ok(
      ...families('-o', 'com.docker.network.enable_ipv4=false', '-o', 'com.docker.network.enable_ipv6=true', 'six'),
    );
    await t.ok(...families('--ipv6', '-o', 'com.docker.network.enable_ipv6=false', 'both'));
    const shown = (name: string) =>
      t.ok('network', 'inspect', '-f', '{{.EnableIPv4}} {{.EnableIPv6}} {{len .IPAM.Config}}', name);
    expect(await shown('six')).toBe('false true 1');
    expect(await shown('both')).toBe('true true 2');
    await web('w6', '--network', 'six', '-p', '18021:80');
    expect(await t.ok('inspect', '-f', '{{.NetworkSettings.Networks.six.IPAddress}}|', 'w6')).toBe('|');
    expect(await t.ok('run', '--rm', '--network', 'six', 'busybox', 'wget', '-qO-', 'http://w6/')).toBe('w6');
    // A new bridge looks for a second or two whether anybody has its link-local address.
    const v6 = `http://[${neighbour.address.engineV6}]:18021/`;
    await waitFor(() => neighbour.get(v6) === 'w6', { what: 'the port on IPv6' });
    for (const [option, message] of [
      [
        `${bridge('enable_icc')}=maybe`,
        `failed to parse ${bridge('enable_icc')} value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)`,
      ],
      [
        `${bridge('gateway_mode_ipv4')}=bogus`,
        `failed to parse ${bridge('gateway_mode_ipv4')} value: bogus (unknown gateway mode bogus)`,
      ],
      ['com.docker.network.host_ipv4=x', 'failed to parse com.docker.network.host_ipv4 value: x (nil ip)'],
      [
        'com.docker.network.driver.mtu=x',
        'failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing "x": invalid syntax)',
      ],
      ['com.docker.network.driver.mtu=-1', 'invalid MTU number: -1'],
      ['com.docker.network.enable_ipv4=x', 'driver-opt "com.docker.network.enable_ipv4" is not a valid bool'],
      [`${bridge('name')}=a/b`, `failed to parse ${bridge('name')} value: a/b (not an interface name)`],
      [`${bridge('name')}=brown`, 'networks have same bridge name'],
    ] as const)
      expect(await refusal('network', 'create', '-o', option, 'x')).toContain(message);
    expect(await refusal(...families('--ipv4=false', 'x'))).toContain('IPv4 or IPv6 must be enabled');
    expect(await t.ok('network', 'ls', '-q', '--filter', 'name=^x$')).toBe('');
  });
});
