import { execFileSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ChildProcess } from 'node:child_process';
import { network as proto } from '@flotilla/proto';
import { NamespaceHolder } from '@flotilla/sys';
import { waitFor } from '@flotilla/testkit';
import { NetworkUnderTest, call, endpoint, isRoot, newContainerId, port } from './network-under-test.js';
import { answering, ask, nameServer, queryRaw, resolve } from './probe.js';

describe.skipIf(!isRoot)('sandboxes, over gRPC (needs root)', () => {
  let service: NetworkUnderTest;
  let host: string;
  const children: ChildProcess[] = [];
  const containers: string[] = [];

  const inside = (containerId: string): string => join(service.execRoot, 'netns', containerId);
  const prepare = async (
    request: Partial<proto.PrepareSandboxRequest>,
  ): Promise<proto.PrepareSandboxResponse & { containerId: string }> => {
    const prepared = await service.prepare(request);
    containers.push(prepared.containerId);
    return prepared;
  };
  const serve = async (...parameters: Parameters<typeof answering>): Promise<void> => {
    children.push(await answering(...parameters));
  };
  const ownAddress = (prepared: proto.PrepareSandboxResponse): string => prepared.endpoints[0]?.ipv4Address ?? '';

  beforeAll(async () => {
    service = await NetworkUnderTest.start();
    host = `/run/netns/${service.host.name}`;
    for (const name of ['one', 'two']) {
      await service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name }), call);
    }
    await service.client.createNetwork(
      proto.CreateNetworkRequest.fromPartial({
        name: 'six',
        enableIpv6: true,
        ipam: { pools: [{ subnet: '10.77.0.0/24' }, { subnet: 'fd77::/64' }] },
      }),
      call,
    );
    await service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name: 'inner', internal: true }), call);
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill();
    for (const containerId of containers.splice(0)) await service.client.releaseSandbox({ containerId }, call);
    const hasVeth = (): boolean => service.traces().links.some((link) => link.startsWith('veth'));
    await waitFor(() => !hasVeth(), { what: 'interfaces to go' });
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
  });

  it('gives a container of the default bridge an address, a MAC, a gateway and files', async () => {
    const prepared = await prepare({
      endpoints: [endpoint('bridge')],
      hostname: 'web',
      domainName: 'example.org',
      extraHosts: ['db:10.1.2.3', 'host.docker.internal:host-gateway'],
    });
    expect(prepared.endpoints).toMatchObject([
      {
        networkName: 'bridge',
        ipv4Address: '10.88.0.2',
        ipv4PrefixLength: 24,
        gateway: '10.88.0.1',
        macAddress: '02:42:0a:58:00:02',
        interfaceName: 'eth0',
        dnsNames: [],
      },
    ]);
    expect(prepared.namespacePath).toBe(inside(prepared.containerId));
    expect(prepared.hosts).toEqual([
      { address: '10.1.2.3', names: ['db'] },
      { address: '10.88.0.1', names: ['host.docker.internal'] },
      { address: '10.88.0.2', names: ['web.example.org', 'web'] },
    ]);
    expect(prepared.resolvConf).toBe('nameserver 8.8.8.8\nnameserver 8.8.4.4\nsearch example.test\n');
    expect(service.inContainer(prepared.containerId, 'ip', ['route'])).toContain('default via 10.88.0.1 dev eth0');
    await serve(inside(prepared.containerId), 'tcp', '0.0.0.0', 80, 'hello');
    expect(ask(host, 'tcp', '10.88.0.2', 80)).toBe('hello 10.88.0.1');
  });

  it('answers a repeated request the same, and lets a released container go', async () => {
    const containerId = newContainerId();
    const request = { containerId, endpoints: [endpoint('one')], ports: [port(80, { hostPort: 8100 })] };
    const first = await prepare(request);
    const second = await prepare(request);
    expect(second).toEqual({ ...first, revision: second.revision });
    await service.client.releaseSandbox({ containerId }, call);
    await service.client.releaseSandbox({ containerId }, call);
    expect(service.traces().namespaces).not.toContain(containerId);
    expect(service.ruleset()).not.toContain('8100');
    await waitFor(() => !service.traces().links.some((link) => link.startsWith('veth')), { what: 'the veth to go' });
  });

  it('takes over a namespace that the caller has made in a user namespace', async () => {
    const ranges = [{ containerId: 0, hostId: 200_000, size: 65_536 }];
    await using holder = await NamespaceHolder.inNewUserNamespace({ uids: ranges, gids: ranges }, { network: true });
    const adoptedNamespacePath = holder.path('net');
    const prepared = await prepare({ endpoints: [endpoint('one')], adoptedNamespacePath });
    expect(statSync(prepared.namespacePath).ino).toBe(statSync(adoptedNamespacePath).ino);
    expect(service.inContainer(prepared.containerId, 'ip', ['route'])).toContain('default via');
    // Its root rules it.
    execFileSync('nsenter', [
      `--user=${holder.path('user')}`,
      `--net=${adoptedNamespacePath}`,
      'ip',
      'link',
      'set',
      'eth0',
      'down',
    ]);
    await expect(prepare({ endpoints: [endpoint('one')], adoptedNamespacePath: '/nowhere' })).rejects.toThrow(
      'failed to set up the network namespace',
    );
  });

  it('makes a namespace with only loopback for mode none, and none for mode host', async () => {
    const none = await prepare({});
    expect(none.endpoints).toMatchObject([{ networkName: 'none', ipv4Address: '' }]);
    expect(service.inContainer(none.containerId, 'ip', ['-o', 'link'])).toMatch(/^1: lo: <LOOPBACK,UP[^\n]*\n$/);
    const shared = await prepare({ hostMode: true });
    expect(shared).toMatchObject({ namespacePath: '', resolvConf: 'nameserver 127.0.0.1\nsearch example.test\n' });
    expect(shared.endpoints).toMatchObject([{ networkName: 'host' }]);
  });

  it('publishes a port on every address, and for neighbours and itself', async () => {
    const prepared = await prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8080 })] });
    expect(prepared.ports).toMatchObject([
      { hostIp: '0.0.0.0', hostPort: 8080, containerPort: 80, protocol: 'tcp' },
      { hostIp: '::', hostPort: 8080, containerPort: 80, protocol: 'tcp' },
    ]);
    const neighbour = await prepare({ endpoints: [endpoint('bridge')] });
    const stranger = await prepare({ endpoints: [endpoint('one')] });
    await serve(inside(prepared.containerId), 'tcp', '0.0.0.0', 80, 'web');
    expect(ask(host, 'tcp', '127.0.0.1', 8080)).toMatch(/^web /);
    expect(ask(host, 'tcp', '::1', 8080)).toMatch(/^web /);
    expect(ask(host, 'tcp', '10.88.0.1', 8080)).toMatch(/^web /);
    expect(ask(inside(neighbour.containerId), 'tcp', '10.88.0.1', 8080)).toMatch(/^web /);
    expect(ask(inside(prepared.containerId), 'tcp', '10.88.0.1', 8080)).toMatch(/^web /);
    expect(ask(inside(neighbour.containerId), 'tcp', ownAddress(prepared), 80)).toBe(`web ${ownAddress(neighbour)}`);
    expect(ask(inside(stranger.containerId), 'tcp', ownAddress(prepared), 80, 500)).toBe('TIMEOUT');
  });

  it('lets containers out under the address of the host', async () => {
    service.host.run('ip', ['link', 'add', 'out0', 'type', 'veth', 'peer', 'name', 'out1']);
    service.host.run('ip', ['addr', 'add', '192.0.2.1/24', 'dev', 'out0']);
    service.host.run('ip', ['link', 'set', 'out0', 'up']);
    const server = await prepare({});
    service.host.run('ip', ['link', 'set', 'out1', 'netns', inside(server.containerId)]);
    service.inContainer(server.containerId, 'ip', ['addr', 'add', '192.0.2.2/24', 'dev', 'out1']);
    service.inContainer(server.containerId, 'ip', ['link', 'set', 'out1', 'up']);
    await serve(inside(server.containerId), 'tcp', '0.0.0.0', 80, 'outside');
    const container = await prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8081 })] });
    const internal = await prepare({ endpoints: [endpoint('inner')] });
    await serve(inside(container.containerId), 'tcp', '0.0.0.0', 80, 'published');
    expect(ask(inside(container.containerId), 'tcp', '192.0.2.2', 80)).toBe('outside 192.0.2.1');
    expect(ask(inside(internal.containerId), 'tcp', '192.0.2.2', 80)).toBe('ENETUNREACH');
    expect(ask(inside(server.containerId), 'tcp', '192.0.2.1', 8081)).toBe('published 192.0.2.2');
    service.inContainer(server.containerId, 'ip', ['route', 'add', '10.88.0.0/24', 'via', '192.0.2.1']);
    expect(ask(inside(server.containerId), 'tcp', ownAddress(container), 80, 400)).toBe('TIMEOUT');
  });

  it('publishes udp, on one address, and forgets old flows', async () => {
    const first = await prepare({
      endpoints: [endpoint('bridge')],
      ports: [port(53, { protocol: 'udp', hostIp: '127.0.0.1', hostPort: 5353 })],
    });
    expect(first.ports).toMatchObject([{ hostIp: '127.0.0.1', hostPort: 5353, protocol: 'udp' }]);
    await serve(inside(first.containerId), 'udp', '0.0.0.0', 53, 'dns');
    expect(ask(host, 'udp', '127.0.0.1', 5353)).toMatch(/^dns /);
    expect(ask(host, 'udp', '10.88.0.1', 5353, 500)).not.toMatch(/^dns /);
  });

  it('leads a udp client that keeps its port to the new container', async () => {
    const binding = port(53, { protocol: 'udp', hostPort: 5354 });
    const first = await prepare({ endpoints: [endpoint('bridge')], ports: [binding] });
    const holder = await prepare({ endpoints: [endpoint('bridge')] });
    await serve(inside(first.containerId), 'udp', '0.0.0.0', 53, 'old');
    expect(ask(host, 'udp', '10.88.0.1', 5354, 8000, 40404)).toMatch(/^old /);
    await service.client.releaseSandbox({ containerId: first.containerId }, call);
    expect(ask(host, 'udp', '10.88.0.1', 5354, 300, 40404)).not.toMatch(/^old /);
    const second = await prepare({ endpoints: [endpoint('one')], ports: [binding] });
    await serve(inside(second.containerId), 'udp', '0.0.0.0', 53, 'new');
    expect(ask(host, 'udp', '10.88.0.1', 5354, 8000, 40404)).toMatch(/^new /);
    expect(ownAddress(holder)).toBe('10.88.0.3');
  });

  it('leads a udp client that keeps its port after a container that moves to another network', async () => {
    const binding = port(53, { protocol: 'udp', hostPort: 5355 });
    const { containerId, ...moving } = await prepare({ endpoints: [endpoint('one')], ports: [binding] });
    await serve(inside(containerId), 'udp', '0.0.0.0', 53, 'moving');
    const asked = (): string => ask(host, 'udp', '10.88.0.1', 5355, 8000, 40405);
    expect(asked()).toMatch(/^moving /);
    const { endpoint: second } = await service.client.connectSandbox({ containerId, endpoint: endpoint('two') }, call);
    await service.client.disconnectSandbox({ containerId, network: 'one', force: false }, call);
    // The address that it had is another container's now.
    const heir = await prepare({ endpoints: [endpoint('one', { macAddress: '' })] });
    expect(ownAddress(heir)).toBe(ownAddress(moving));
    await serve(inside(heir.containerId), 'udp', '0.0.0.0', 53, 'heir');
    expect(asked()).toMatch(/^moving /);
    expect(second?.networkName).toBe('two');
  });

  it('finds a random port and a port of a range', async () => {
    const random = await prepare({ endpoints: [endpoint('bridge')], ports: [port(80)] });
    expect(random.ports[0]?.hostPort).toBeGreaterThan(1023);
    expect(random.ports.map(({ hostPort }) => hostPort)).toEqual([
      random.ports[0]?.hostPort,
      random.ports[0]?.hostPort,
    ]);
    const range = port(80, { hostPort: 8200, hostPortEnd: 8201 });
    const first = await prepare({ endpoints: [endpoint('bridge')], ports: [range] });
    const second = await prepare({ endpoints: [endpoint('bridge')], ports: [range] });
    expect([first.ports[0]?.hostPort, second.ports[0]?.hostPort]).toEqual([8200, 8201]);
    const exposed = await prepare({
      endpoints: [endpoint('bridge')],
      publishAll: true,
      exposedPorts: ['80/tcp', '90-91/udp'],
    });
    expect(
      exposed.ports.filter(({ hostIp }) => hostIp === '0.0.0.0').map(({ containerPort }) => containerPort),
    ).toEqual([80, 90, 91]);
  });

  it('says who has a port, and leaves nothing behind', async () => {
    const first = await prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8300 })] });
    const before = service.traces();
    const clash = { containerName: 'late', endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8300 })] };
    await expect(service.prepare(clash)).rejects.toMatchObject({
      kind: 'internal',
      message: expect.stringMatching(
        /^driver failed programming external connectivity on endpoint late \([0-9a-f]{64}\): Bind for 0\.0\.0\.0:8300 failed: port is already allocated$/,
      ) as string,
    });
    await expect(
      service.prepare({ ...clash, ports: [port(1, { hostPort: 8300, hostIp: '127.0.0.1' })] }),
    ).rejects.toThrow('Bind for 127.0.0.1:8300 failed: port is already allocated');
    await serve(host, 'tcp', '0.0.0.0', 8301, 'other process');
    await expect(
      service.prepare({ ...clash, ports: [port(80, { hostPort: 8302 }), port(80, { hostPort: 8301 })] }),
    ).rejects.toThrow('failed to bind host port for 0.0.0.0:8301:10.88.0.3:80/tcp: address already in use');
    expect(service.traces()).toEqual(before);
    const again = await prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8302 })] });
    expect(ownAddress(again)).toBe('10.88.0.3');
    expect(first.ports).toHaveLength(2);
  });

  it.each<[Partial<proto.PrepareSandboxRequest>, string, string]>([
    [{ endpoints: [endpoint('nosuch')] }, 'notFound', 'network nosuch not found'],
    [
      { endpoints: [endpoint('bridge')], ports: [port(80, { protocol: 'sctp' })] },
      'invalidArgument',
      'publishing ports of protocol sctp is not supported',
    ],
    [
      { endpoints: [endpoint('bridge')], ports: [port(0)] },
      'invalidArgument',
      'invalid container port 0: must be between 1 and 65535',
    ],
    [{ endpoints: [endpoint('bridge')], extraHosts: ['db'] }, 'invalidArgument', 'bad format for add-host: "db"'],
    [
      { endpoints: [endpoint('one', { ipv4Address: '10.88.1.9' })] },
      'invalidArgument',
      'invalid endpoint settings:\nuser specified IP address is supported only when connecting to networks with user configured subnets',
    ],
    [
      { endpoints: [endpoint('six', { ipv4Address: '10.1.1.1' })] },
      'invalidArgument',
      'invalid endpoint settings:\nno configured subnet contains IP address 10.1.1.1',
    ],
    [{ endpoints: [endpoint('one', { macAddress: 'zz' })] }, 'invalidArgument', 'invalid MAC address: zz'],
  ])('refuses %j', async (request, kind, message) => {
    const before = service.traces();
    await expect(service.prepare(request)).rejects.toMatchObject({ kind, message });
    expect(service.traces()).toEqual(before);
  });

  it('gives fixed addresses once', async () => {
    const fixed = {
      endpoints: [
        endpoint('six', { ipv4Address: '10.77.0.50', ipv6Address: 'fd77::50', macAddress: '02:42:00:00:00:50' }),
      ],
    };
    const prepared = await prepare(fixed);
    expect(prepared.endpoints).toMatchObject([
      { ipv4Address: '10.77.0.50', ipv6Address: 'fd77::50', macAddress: '02:42:00:00:00:50', ipv6Gateway: 'fd77::1' },
    ]);
    await expect(service.prepare(fixed)).rejects.toMatchObject({
      kind: 'permissionDenied',
      message: 'Address already in use',
    });
  });

  it('publishes on IPv6 where the network has it', async () => {
    const prepared = await prepare({ endpoints: [endpoint('six')], ports: [port(80, { hostPort: 8600 })] });
    await serve(inside(prepared.containerId), 'tcp', '::', 80, 'six');
    expect(ask(host, 'tcp', '::1', 8600)).toMatch(/^six /);
    expect(ask(host, 'tcp', 'fd77::1', 8600)).toMatch(/^six fd77::1/);
    expect(ask(host, 'tcp', '127.0.0.1', 8600)).toMatch(/^six /);
  });

  it('resolves names, aliases and short ids on user-defined networks, and nobody else', async () => {
    const web = await prepare({ containerName: 'web', endpoints: [endpoint('one', { aliases: ['www', 'shared'] })] });
    const api = await prepare({ containerName: 'api', endpoints: [endpoint('one', { aliases: ['shared'] })] });
    const other = await prepare({ containerName: 'other', endpoints: [endpoint('two')] });
    expect(web.resolvConf).toBe('nameserver 127.0.0.11\nsearch example.test\noptions ndots:0\n');
    const asker = inside(api.containerId);
    for (const name of ['web', 'www', 'WEB', 'web.one', web.containerId.slice(0, 12)]) {
      expect(resolve(asker, name)).toEqual([ownAddress(web)]);
    }
    expect(resolve(asker, 'web', 'AAAA')).toBe('ENODATA');
    expect(resolve(asker, 'other')).toBe('ESERVFAIL');
    expect(resolve(inside(other.containerId), 'web')).toBe('ESERVFAIL');
    const both = [ownAddress(web), ownAddress(api)];
    expect([...(resolve(asker, 'shared') as string[])].sort()).toEqual([...both].sort());
    const reversed = ownAddress(web).split('.').reverse().join('.');
    expect(resolve(asker, `${reversed}.in-addr.arpa`, 'PTR')).toEqual(['web.one']);
    await service.client.renameSandbox({ containerId: web.containerId, containerName: 'renamed' }, call);
    expect(resolve(asker, 'renamed')).toEqual([ownAddress(web)]);
    expect(resolve(asker, 'web')).toBe('ESERVFAIL');
  });

  it('passes other names on to the resolvers of the host, and broken queries not', async () => {
    const asker = await prepare({ endpoints: [endpoint('one')] });
    children.push(await nameServer(host, '127.0.0.1', '203.0.113.9'));
    expect(resolve(inside(asker.containerId), 'example.test')).toEqual(['203.0.113.9']);
    const hidden = await prepare({ endpoints: [endpoint('inner')] });
    expect(resolve(inside(hidden.containerId), 'example.test')).toBe('ESERVFAIL');
    expect(queryRaw(inside(asker.containerId), 'udp', '00').slice(0, 7)).toBe('TIMEOUT');
    expect(queryRaw(inside(asker.containerId), 'udp', '1234010000020000000000000000').slice(0, 8)).toBe('12348181');
    expect(queryRaw(inside(asker.containerId), 'tcp', '000c123428000001000000000000').slice(0, 12)).toBe(
      '000c1234a884',
    );
  });

  it('connects and disconnects a running container', async () => {
    const moving = await prepare({
      containerName: 'moving',
      endpoints: [endpoint('one')],
      ports: [port(80, { hostPort: 8400 })],
    });
    const peer = await prepare({ containerName: 'peer', endpoints: [endpoint('two')] });
    const { containerId } = moving;
    await serve(inside(containerId), 'tcp', '0.0.0.0', 80, 'moved');
    const asked = { containerId, endpoint: endpoint('two', { aliases: ['m'] }) };
    const once = { ...call, requestId: 'connect-1' };
    const connected = await service.client.connectSandbox(asked, once);
    expect(await service.client.connectSandbox(asked, once)).toEqual(connected);
    expect(connected.endpoint).toMatchObject({ interfaceName: 'eth1', networkName: 'two' });
    expect(resolve(inside(peer.containerId), 'm')).toEqual([connected.endpoint?.ipv4Address]);
    expect(ask(inside(peer.containerId), 'tcp', connected.endpoint?.ipv4Address ?? '', 80)).toMatch(/^moved /);
    await expect(service.client.connectSandbox({ containerId, endpoint: endpoint('two') }, call)).rejects.toMatchObject(
      {
        kind: 'permissionDenied',
        message: 'endpoint with name moving already exists in network two',
      },
    );
    await service.client.disconnectSandbox({ containerId, network: 'one', force: false }, call);
    expect(service.inContainer(containerId, 'ip', ['route'])).toContain(
      `default via ${connected.endpoint?.gateway ?? ''} dev eth1`,
    );
    expect(ask(host, 'tcp', '127.0.0.1', 8400)).toMatch(/^moved /);
    await expect(
      service.client.disconnectSandbox({ containerId, network: 'one', force: false }, call),
    ).rejects.toMatchObject({
      kind: 'conflict',
      message: `container ${containerId} is not connected to network one`,
    });
    expect(resolve(inside(peer.containerId), 'moving')).toEqual([connected.endpoint?.ipv4Address]);
  });

  it('keeps an internal network inside', async () => {
    const hidden = await prepare({
      containerName: 'hidden',
      endpoints: [endpoint('inner')],
      ports: [port(80, { hostPort: 8500 })],
    });
    expect(hidden.ports).toEqual([]);
    expect(hidden.endpoints).toMatchObject([{ gateway: '' }]);
    expect(service.inContainer(hidden.containerId, 'ip', ['route'])).not.toContain('default');
    const peer = await prepare({ endpoints: [endpoint('inner')] });
    await serve(inside(hidden.containerId), 'tcp', '0.0.0.0', 80, 'inner');
    expect(resolve(inside(peer.containerId), 'hidden')).toEqual([ownAddress(hidden)]);
    expect(ask(inside(peer.containerId), 'tcp', ownAddress(hidden), 80)).toMatch(/^inner /);
  });

  it('gets a reused address to the new container at once', async () => {
    for (let round = 0; round < 5; round++) {
      const prepared = await prepare({ endpoints: [endpoint('bridge')] });
      await serve(inside(prepared.containerId), 'tcp', '0.0.0.0', 80, `round ${round}`);
      expect(ask(host, 'tcp', '10.88.0.2', 80, 800)).toMatch(new RegExp(`^round ${round} `));
      for (const child of children.splice(0)) child.kill();
      await service.client.releaseSandbox({ containerId: prepared.containerId }, call);
    }
  });

  it('restores the table after a foreign flush, and passes a foreign drop policy', async () => {
    const prepared = await prepare({ endpoints: [endpoint('one')], ports: [port(80, { hostPort: 8700 })] });
    await serve(inside(prepared.containerId), 'tcp', '0.0.0.0', 80, 'back');
    const neighbour = await prepare({ endpoints: [endpoint('one')] });
    service.host.run('nft', ['flush', 'ruleset']);
    service.host.run('nft', ['add', 'table', 'ip', 'filter']);
    service.host.run('nft', ['add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }']);
    await waitFor(() => service.ruleset().includes('8700') && service.ruleset().includes('comment "flotilla_'), {
      what: 'the table to come back',
    });
    expect(ask(host, 'tcp', '127.0.0.1', 8700)).toMatch(/^back /);
    expect(ask(inside(neighbour.containerId), 'tcp', ownAddress(prepared).replace(/\d+$/, '1'), 8700)).toMatch(
      /^back /,
    );
    service.host.run('nft', ['flush', 'table', 'inet', `flotilla_${service.engineId.replaceAll('-', '').slice(0, 8)}`]);
    await waitFor(() => service.ruleset().includes('jump user'), { what: 'the rules to come back' });
    service.host.run('nft', ['delete', 'table', 'ip', 'filter']);
  });

  it('releases what no live container holds', async () => {
    const kept = await prepare({ endpoints: [endpoint('one')] });
    const lost = await prepare({ endpoints: [endpoint('one')] });
    await waitFor(
      async () => {
        const { released } = await service.client.reconcileHolders(
          { liveContainerIds: [kept.containerId], revision: 0n },
          call,
        );
        return released.includes(lost.containerId);
      },
      { what: 'the lost sandbox to be released', intervalMs: 200 },
    );
    expect(service.traces().namespaces).toContain(kept.containerId);
    expect(service.traces().namespaces).not.toContain(lost.containerId);
  });

  it('prepares twenty at once', async () => {
    const started = performance.now();
    const prepared = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        prepare({ endpoints: [endpoint('two')], ports: [port(80, { hostPort: 8800 + index })] }),
      ),
    );
    expect(new Set(prepared.map(ownAddress)).size).toBe(20);
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

// A host process in the test's own namespace is no reason to refuse a port in another one.
it.skipIf(!isRoot)('keeps to its own network namespace (needs root)', async () => {
  const server = createServer().listen(0, '0.0.0.0');
  await new Promise((listening) => server.once('listening', listening));
  const address = server.address();
  const hostPort = typeof address === 'object' ? (address?.port ?? 0) : 0;
  const service = await NetworkUnderTest.start();
  try {
    await service.prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort, hostIp: '0.0.0.0' })] });
  } finally {
    await service[Symbol.asyncDispose]();
    server.close();
  }
});
