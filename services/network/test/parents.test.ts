import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { network as proto } from '@flotilla/proto';
import { NetworkUnderTest, call, endpoint, isRoot, port } from './network-under-test.js';
import { answering, ask, resolve } from './probe.js';

const create = (name: string, request: Partial<proto.CreateNetworkRequest>): proto.CreateNetworkRequest =>
  proto.CreateNetworkRequest.fromPartial({ name, ...request });
const pools = (...subnets: string[]): proto.Ipam =>
  proto.Ipam.fromPartial({ pools: subnets.map((subnet) => ({ subnet })) });

/** Kinds of links that the kernel of this machine may lack. */
const kinds = ['macvlan', 'ipvlan', 'vlan', 'dummy'] as const;

describe.skipIf(!isRoot)('networks on a link of the host (needs root)', () => {
  let service: NetworkUnderTest;
  const children: ChildProcess[] = [];
  const has = {} as Record<(typeof kinds)[number], boolean>;
  const inside = (containerId: string): string => join(service.execRoot, 'netns', containerId);
  /** `lan0` is the host's side of a wire whose far end is `far0`, there too. */
  const plug = (): void => {
    service.host.run('ip', ['link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'far0']);
    for (const name of ['lan0', 'far0']) service.host.run('ip', ['link', 'set', name, 'up']);
  };
  const linkNames = (): string[] => service.traces().links.map((name) => name.split('@')[0] ?? '');

  beforeAll(async () => {
    service = await NetworkUnderTest.start();
    plug();
    for (const kind of kinds) {
      const on = kind === 'dummy' ? [] : ['link', 'lan0'];
      const more = kind === 'vlan' ? ['id', '7'] : [];
      try {
        service.host.run('ip', ['link', 'add', ...on, 'name', 'probe0', 'type', kind, ...more]);
        service.host.run('ip', ['link', 'delete', 'probe0']);
        has[kind] = true;
      } catch {
        has[kind] = false;
      }
    }
  });
  afterEach(() => {
    for (const child of children.splice(0)) child.kill();
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
  });

  it('macvlan: two containers talk, with fixed address and MAC, IPv6 and names, and nothing is published', async (t) => {
    if (!has.macvlan) t.skip('this kernel has no macvlan');
    const before = service.traces();
    const { id } = await service.client.createNetwork(
      create('lan', {
        driver: 'macvlan',
        enableIpv6: true,
        options: { parent: 'lan0' },
        ipam: proto.Ipam.fromPartial({
          pools: [{ subnet: '10.99.1.0/24', gateway: '10.99.1.254' }, { subnet: 'fd99:1::/64' }],
        }),
      }),
      call,
    );
    expect(service.traces()).toEqual(before);
    const web = await service.prepare({
      containerName: 'web',
      endpoints: [endpoint('lan', { ipv4Address: '10.99.1.80', macAddress: '02:00:00:00:00:50' })],
      ports: [port(80, { hostPort: 8070 })],
    });
    expect(web.ports).toEqual([]);
    expect(web.endpoints[0]).toMatchObject({
      ipv4Address: '10.99.1.80',
      gateway: '10.99.1.254',
      ipv6Address: 'fd99:1::2',
      macAddress: '02:00:00:00:00:50',
      interfaceName: 'eth0',
    });
    expect(web.resolvConf).toContain('nameserver 127.0.0.11');
    const peer = await service.prepare({ containerName: 'peer', endpoints: [endpoint('lan')] });
    expect(peer.endpoints[0]).toMatchObject({ ipv4Address: '10.99.1.1', macAddress: '02:42:0a:63:01:01' });
    expect(service.inContainer(web.containerId, 'ip', ['-d', 'link', 'show', 'eth0'])).toMatch(/macvlan mode bridge/);
    expect(service.inContainer(web.containerId, 'ip', ['route'])).toContain('default via 10.99.1.254 dev eth0');
    for (const address of ['10.99.1.80', 'fd99:1::2']) {
      children.push(await answering(inside(web.containerId), 'tcp', address, 80, 'web'));
      expect(ask(inside(peer.containerId), 'tcp', address, 80)).toMatch(/^web /);
    }
    expect(resolve(inside(peer.containerId), 'web')).toEqual(['10.99.1.80']);
    await expect(service.client.removeNetwork({ name: 'lan' }, call)).rejects.toThrow('has active endpoints');
    const { network } = await service.client.getNetwork({ name: id }, call);
    expect(network?.endpoints.map(({ containerName }) => containerName).sort()).toEqual(['peer', 'web']);

    // The address, and so the MAC, can be had again at once.
    await service.client.releaseSandbox({ containerId: peer.containerId }, call);
    const next = await service.prepare({ containerName: 'next', endpoints: [endpoint('lan')] });
    expect(next.endpoints[0]?.macAddress).toBe(peer.endpoints[0]?.macAddress);
    expect(ask(inside(next.containerId), 'tcp', '10.99.1.80', 80)).toMatch(/^web /);

    // Dead, or gone with the link below and back with it: the containers have their interfaces again.
    await service.kill();
    await service.startProcess();
    expect(ask(inside(next.containerId), 'tcp', '10.99.1.80', 80)).toMatch(/^web /);
    expect(resolve(inside(next.containerId), 'web')).toEqual(['10.99.1.80']);
    await service.kill();
    service.host.run('ip', ['link', 'delete', 'lan0']);
    expect(() => service.inContainer(next.containerId, 'ip', ['link', 'show', 'eth0'])).toThrow();
    await service.startProcess();
    expect(service.log).toContain('parent lan0 of a network is not there');
    await service.kill();
    plug();
    await service.startProcess();
    expect(service.inContainer(web.containerId, 'ip', ['route'])).toContain('default via 10.99.1.254 dev eth0');
    children.push(await answering(inside(web.containerId), 'tcp', '10.99.1.80', 81, 'web'));
    expect(ask(inside(next.containerId), 'tcp', '10.99.1.80', 81)).toMatch(/^web /);

    for (const { containerId } of [web, next]) await service.client.releaseSandbox({ containerId }, call);
    await service.client.removeNetwork({ name: 'lan' }, call);
    expect(linkNames().sort()).toEqual(before.links.map((name) => name.split('@')[0] ?? '').sort());
  });

  it('macvlan: connects and disconnects running containers, and keeps modes apart', async (t) => {
    if (!has.macvlan) t.skip('this kernel has no macvlan');
    const on = (name: string, subnet: string, options: Record<string, string>, internal = false) =>
      service.client.createNetwork(
        create(name, { driver: 'macvlan', internal, ipam: pools(subnet), options: { parent: 'lan0', ...options } }),
        call,
      );
    await on('private', '10.99.2.0/24', { macvlan_mode: 'private' });
    await on('inner', '10.99.3.0/24', { macvlan_mode: 'vepa' }, true);
    await expect(on('alone', '10.99.4.0/24', { macvlan_mode: 'passthru' })).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: expect.stringMatching(
        /^cannot use mode passthru, macvlan network [0-9a-f]{64} is already using parent interface lan0$/,
      ) as string,
    });
    const { containerId } = await service.prepare({ endpoints: [endpoint('bridge')] });
    const route = (): string => service.inContainer(containerId, 'ip', ['-4', 'route', 'show', 'default']);
    expect(route()).toContain('via 10.88.0.1 dev eth0');
    const connect = (network: string, gatewayPriority: number) =>
      service.client.connectSandbox({ containerId, endpoint: endpoint(network, { gatewayPriority }) }, call);
    expect((await connect('private', 1)).endpoint).toMatchObject({ gateway: '10.99.2.1', interfaceName: 'eth1' });
    expect(route()).toContain('via 10.99.2.1 dev eth1');
    expect((await connect('inner', 2)).endpoint).toMatchObject({ gateway: '', interfaceName: 'eth2' });
    expect(route()).toContain('via 10.99.2.1 dev eth1');
    expect(service.inContainer(containerId, 'ip', ['-d', 'link', 'show', 'eth1'])).toContain('mode private');
    expect(service.inContainer(containerId, 'ip', ['-d', 'link', 'show', 'eth2'])).toContain('mode vepa');
    await service.client.disconnectSandbox({ containerId, network: 'private', force: false }, call);
    expect(() => service.inContainer(containerId, 'ip', ['link', 'show', 'eth1'])).toThrow();
    expect(route()).toContain('via 10.88.0.1 dev eth0');
    await service.client.releaseSandbox({ containerId }, call);
    for (const name of ['private', 'inner']) await service.client.removeNetwork({ name }, call);
    await on('alone', '10.99.4.0/24', { macvlan_mode: 'passthru' });
    await expect(on('beside', '10.99.5.0/24', {})).rejects.toThrow(
      /^macvlan network [0-9a-f]{64} is already using parent interface lan0 in mode passthru$/,
    );
    const first = await service.prepare({ endpoints: [endpoint('alone')] });
    await expect(service.prepare({ endpoints: [endpoint('alone')] })).rejects.toThrow(
      'failed to create the macvlan port on lan0',
    );
    expect(service.traces().namespaces).toEqual([first.containerId]);
    await service.client.releaseSandbox({ containerId: first.containerId }, call);
    await service.client.removeNetwork({ name: 'alone' }, call);
  });

  it('makes VLANs and dummies as parents, and removes them with their last network; or says that the kernel cannot', async () => {
    const before = linkNames().sort();
    const vlan = (name: string, subnet: string, parent = 'lan0.10') =>
      service.client.createNetwork(create(name, { driver: 'macvlan', options: { parent }, ipam: pools(subnet) }), call);
    if (has.vlan && has.macvlan) {
      await vlan('vlan-a', '10.99.10.0/24');
      await vlan('vlan-b', '10.99.11.0/24');
      expect(linkNames()).toContain('lan0.10');
      await service.kill();
      await service.startProcess();
      await service.client.removeNetwork({ name: 'vlan-a' }, call);
      expect(linkNames()).toContain('lan0.10');
      await service.client.removeNetwork({ name: 'vlan-b' }, call);
    } else if (has.macvlan) {
      await expect(vlan('vlan-a', '10.99.10.0/24')).rejects.toMatchObject({
        kind: 'unimplemented',
        message: 'this kernel has no links of type vlan, which macvlan needs for the parent lan0.10',
      });
    }
    const nothing = (driver: string) => service.client.createNetwork(create('island', { driver }), call);
    if (has.macvlan && has.dummy) {
      const { id } = await nothing('macvlan');
      expect(linkNames()).toContain(`dm-${id.slice(0, 12)}`);
      const { containerId, endpoints } = await service.prepare({ endpoints: [endpoint('island')] });
      expect(endpoints[0]?.gateway).toBe('');
      await service.client.releaseSandbox({ containerId }, call);
      await service.client.removeNetwork({ name: 'island' }, call);
    } else if (has.macvlan) {
      await expect(nothing('macvlan')).rejects.toMatchObject({
        kind: 'unimplemented',
        message: 'this kernel has no links of type dummy, which macvlan needs when no parent is given',
      });
    }
    expect(linkNames().sort()).toEqual(before);
  });

  it('ipvlan: two containers talk, or the create says that the kernel cannot', async () => {
    const before = service.traces();
    const on = (name: string, subnet: string, options: Record<string, string> = {}) =>
      service.client.createNetwork(
        create(name, { driver: 'ipvlan', options: { parent: 'lan0', ...options }, ipam: pools(subnet) }),
        call,
      );
    if (!has.ipvlan) {
      await expect(on('ip', '10.99.20.0/24')).rejects.toMatchObject({
        kind: 'unimplemented',
        message: 'this kernel has no links of type ipvlan',
      });
      expect(service.traces()).toEqual(before);
      expect((await service.client.listNetworks({}, call)).networks).toHaveLength(3);
      return;
    }
    for (const [mode, route] of [
      ['l2', 'default via 10.99.20.1 dev eth0'],
      ['l3', 'default dev eth0'],
    ] as const) {
      await on('ip', '10.99.20.0/24', { ipvlan_mode: mode });
      await expect(on('ip2', '10.99.21.0/24')).rejects.toThrow('is already using parent interface lan0');
      const web = await service.prepare({ containerName: 'web', endpoints: [endpoint('ip')] });
      const peer = await service.prepare({ containerName: 'peer', endpoints: [endpoint('ip')] });
      await expect(
        service.prepare({ endpoints: [endpoint('ip', { macAddress: '02:00:00:00:00:01' })] }),
      ).rejects.toThrow('ipvlan interfaces do not support custom mac address assignment');
      expect(service.inContainer(web.containerId, 'ip', ['route'])).toContain(route);
      const address = web.endpoints[0]?.ipv4Address ?? '';
      children.push(await answering(inside(web.containerId), 'tcp', address, 80, 'web'));
      expect(ask(inside(peer.containerId), 'tcp', address, 80)).toMatch(/^web /);
      for (const { containerId } of [web, peer]) await service.client.releaseSandbox({ containerId }, call);
      await service.client.removeNetwork({ name: 'ip' }, call);
    }
  });

  it.each<[string, string, Record<string, string>, string, string]>([
    [
      'the loopback',
      'macvlan',
      { parent: 'lo' },
      'invalidArgument',
      'loopback interface is not a valid macvlan parent link',
    ],
    [
      'the loopback',
      'ipvlan',
      { parent: 'lo' },
      'invalidArgument',
      'loopback interface is not a valid ipvlan parent link',
    ],
    ['a name with a slash', 'macvlan', { parent: '../x' }, 'invalidArgument', 'invalid parent interface name ../x'],
    [
      'an unknown mode',
      'macvlan',
      { parent: 'lan0', macvlan_mode: 'bogus' },
      'invalidArgument',
      "requested macvlan mode 'bogus' is not valid, 'bridge' mode is the macvlan driver default",
    ],
    [
      'an unknown mode',
      'ipvlan',
      { parent: 'lan0', ipvlan_mode: 'l4' },
      'invalidArgument',
      "requested ipvlan mode 'l4' is not valid, 'l2' mode is the ipvlan driver default",
    ],
    [
      'an unknown flag',
      'ipvlan',
      { parent: 'lan0', ipvlan_flag: 'x' },
      'invalidArgument',
      "requested ipvlan flag 'x' is not valid, 'bridge' is the ipvlan driver default",
    ],
    [
      'a link that is not there',
      'macvlan',
      { parent: 'nosuch0' },
      'invalidArgument',
      'invalid subinterface vlan name nosuch0, example formatting is eth0.10',
    ],
    [
      'a VLAN number out of range',
      'macvlan',
      { parent: 'lan0.4095' },
      'invalidArgument',
      'vlan id must be between 1-4094, received: 4095',
    ],
    [
      'a VLAN without a number',
      'macvlan',
      { parent: 'lan0.x' },
      'invalidArgument',
      'unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)',
    ],
    [
      'two dots',
      'macvlan',
      { parent: 'lan0.1.2' },
      'invalidArgument',
      'required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received lan0.1.2',
    ],
  ])('refuses %s as parent of %s', async (_, driver, options, kind, message) => {
    if (!has.macvlan && driver === 'macvlan') return;
    const before = service.traces();
    const request = create('refused', { driver, options, ipam: pools('10.99.30.0/24') });
    await expect(service.client.createNetwork(request, call)).rejects.toMatchObject({ kind, message });
    expect(service.traces()).toEqual(before);
    await expect(service.client.getNetwork({ name: 'refused' }, call)).rejects.toMatchObject({ kind: 'notFound' });
  });
});
