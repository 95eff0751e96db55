import { join } from 'node:path';
import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { network as proto } from '@flotilla/proto';
import { waitFor } from '@flotilla/testkit';
import { NetworkUnderTest, call, endpoint, isRoot, port } from './network-under-test.js';
import { answering, ask } from './probe.js';

const create = (request: Partial<proto.CreateNetworkRequest>): proto.CreateNetworkRequest =>
  proto.CreateNetworkRequest.fromPartial(request);

describe.skipIf(!isRoot)('networks, over gRPC (needs root)', () => {
  let service: NetworkUnderTest;
  beforeAll(async () => {
    service = await NetworkUnderTest.start();
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
  });

  it('has bridge, host and none from the start', async () => {
    const { networks } = await service.client.listNetworks({}, call);
    expect(networks.map(({ name, driver, predefined }) => [name, driver, predefined])).toEqual(
      expect.arrayContaining([
        ['bridge', 'bridge', true],
        ['host', 'host', true],
        ['none', 'null', true],
      ]),
    );
    const bridge = networks.find(({ name }) => name === 'bridge');
    expect(bridge?.ipam?.pools).toEqual([
      { subnet: '10.88.0.0/24', ipRange: '', gateway: '10.88.0.1', auxiliaryAddresses: {} },
    ]);
    expect(service.host.run('ip', ['-4', '-o', 'addr', 'show', 'tbr0'])).toContain('10.88.0.1/24');
  });

  it('creates, finds by name, id and prefix, and removes', async () => {
    const { id } = await service.client.createNetwork(create({ name: 'web', labels: { a: 'b' } }), call);
    for (const reference of ['web', id, id.slice(0, 10)]) {
      const { network } = await service.client.getNetwork({ name: reference }, call);
      expect(network).toMatchObject({ id, name: 'web', driver: 'bridge', labels: { a: 'b' }, enableIpv4: true });
      expect(network?.ipam?.pools[0]).toMatchObject({ subnet: '10.88.1.0/24', gateway: '10.88.1.1' });
    }
    const link = `br-${id.slice(0, 12)}`;
    expect(service.traces().links).toContain(link);
    expect(service.ruleset()).toContain(link);
    await service.client.removeNetwork({ name: 'web' }, call);
    expect(service.ruleset()).not.toContain(link);
    expect(service.host.run('ip', ['-4', 'addr'])).not.toContain('10.88.1.1');
    await waitFor(() => !service.traces().links.includes(link), { what: 'the bridge to go' });
    await expect(service.client.getNetwork({ name: 'web' }, call)).rejects.toMatchObject({
      kind: 'notFound',
      message: 'network web not found',
    });
  });

  it('answers a repeated request id with the same network', async () => {
    const options = { ...call, requestId: 'request-1' };
    const first = await service.client.createNetwork(create({ name: 'once' }), options);
    const second = await service.client.createNetwork(create({ name: 'once' }), options);
    expect(second).toEqual(first);
    await service.client.removeNetwork({ name: 'once' }, call);
  });

  it.each<[Partial<proto.CreateNetworkRequest>, string, string]>([
    [{ name: 'bridge' }, 'permissionDenied', 'operation is not permitted on predefined bridge network'],
    [{ name: 'a/b' }, 'invalidArgument', 'invalid network name "a/b": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed'],
    [{ name: 'x', driver: 'nosuch' }, 'notFound', 'plugin "nosuch" not found'],
    [{ name: 'x', driver: 'host' }, 'permissionDenied', 'only one instance of "host" network is allowed'],
    [
      { name: 'x', ipam: pools({ subnet: '10.9.0.5/24' }) },
      'invalidArgument',
      'invalid network config:\ninvalid subnet 10.9.0.5/24: it should be 10.9.0.0/24',
    ],
    [
      { name: 'x', ipam: pools({ subnet: 'nonsense' }) },
      'invalidArgument',
      'invalid network config:\ninvalid subnet nonsense: invalid CIDR block notation',
    ],
    [
      { name: 'x', ipam: pools({ subnet: '10.9.0.0/24', gateway: '10.8.0.1' }) },
      'invalidArgument',
      "invalid network config:\ninvalid gateway 10.8.0.1: parent subnet 10.9.0.0/24 doesn't contain this address",
    ],
    [
      { name: 'x', ipam: pools({ subnet: '10.88.0.0/25' }) },
      'permissionDenied',
      'invalid pool request: Pool overlaps with other one on this address space',
    ],
    [
      { name: 'x', options: { 'com.docker.network.bridge.enable_icc': 'maybe' } },
      'invalidArgument',
      'failed to parse com.docker.network.bridge.enable_icc value: maybe (strconv.ParseBool: parsing "maybe": invalid syntax)',
    ],
  ])('refuses %j', async (request, kind, message) => {
    // Bridges of networks that are gone leave a moment later: what counts is that nothing is added.
    const { links, tables, namespaces } = service.traces();
    await expect(service.client.createNetwork(create(request), call)).rejects.toMatchObject({ kind, message });
    const after = service.traces();
    expect(after.links.filter((link) => !links.includes(link))).toEqual([]);
    expect({ tables: after.tables, namespaces: after.namespaces }).toEqual({ tables, namespaces });
  });

  it('refuses a name in use, predefined removal and removal with endpoints', async () => {
    await service.client.createNetwork(create({ name: 'busy' }), call);
    await expect(service.client.createNetwork(create({ name: 'busy' }), call)).rejects.toMatchObject({
      kind: 'alreadyExists',
      message: 'network with name busy already exists',
    });
    await expect(service.client.removeNetwork({ name: 'bridge' }, call)).rejects.toMatchObject({
      kind: 'permissionDenied',
      message: 'bridge is a pre-defined network and cannot be removed',
    });
    const { containerId, endpoints } = await service.prepare({ containerName: 'web', endpoints: [endpoint('busy')] });
    await expect(service.client.removeNetwork({ name: 'busy' }, call)).rejects.toMatchObject({
      kind: 'permissionDenied',
      message: `error while removing network: network busy has active endpoints (name:"web" id:"${endpoints[0]?.id.slice(0, 12) ?? ''}")`,
    });
    await service.client.releaseSandbox({ containerId }, call);
    await service.client.removeNetwork({ name: 'busy' }, call);
  });

  it('says when the pools are used up', async () => {
    const small = await NetworkUnderTest.start({ defaultAddressPools: [{ base: '10.90.0.0/23', size: 24 }] });
    try {
      await small.client.createNetwork(create({ name: 'last' }), call);
      await expect(small.client.createNetwork(create({ name: 'one-more' }), call)).rejects.toMatchObject({
        kind: 'notFound',
        message: 'all predefined address pools have been fully subnetted',
      });
    } finally {
      await small[Symbol.asyncDispose]();
    }
  });

  it('publishes through relays alone, without any rule, when it may not touch the firewall', async () => {
    const plain = await NetworkUnderTest.start({ iptables: false, ip6tables: false });
    const children: ChildProcess[] = [];
    try {
      const ports = [port(80, { hostPort: 8080 }), port(53, { protocol: 'udp', hostPort: 5300 })];
      const { containerId } = await plain.prepare({ endpoints: [endpoint('bridge')], ports });
      const inside = join(plain.execRoot, 'netns', containerId);
      const host = `/run/netns/${plain.host.name}`;
      children.push(
        await answering(inside, 'tcp', '0.0.0.0', 80, 'web'),
        await answering(inside, 'udp', '0.0.0.0', 53, 'web'),
      );
      expect(plain.traces().tables).toEqual([]);
      for (const address of ['127.0.0.1', '::1']) {
        expect(ask(host, 'tcp', address, 8080)).toBe('web 10.88.0.1');
        expect(ask(host, 'udp', address, 5300)).toBe('web 10.88.0.1');
      }
    } finally {
      for (const child of children) child.kill();
      await plain[Symbol.asyncDispose]();
    }
  });

  it('streams a snapshot, then changes', async () => {
    const stop = new AbortController();
    const seen: string[] = [];
    const watching = (async () => {
      for await (const { change } of service.client.watchNetworks({}, { signal: stop.signal })) {
        if (change?.$case === 'upsert') seen.push(`${change.value.name} ${change.value.endpoints.length}`);
        else if (change !== undefined) seen.push(change.$case);
        if (change?.$case === 'synced') {
          await service.client.createNetwork(create({ name: 'watched' }), call);
          const { containerId } = await service.prepare({ endpoints: [endpoint('watched')] });
          await service.client.releaseSandbox({ containerId }, call);
          await service.client.removeNetwork({ name: 'watched' }, call);
        }
        if (change?.$case === 'removed') return;
      }
    })();
    await watching;
    expect(seen.slice(0, 4).sort()).toEqual(['bridge 0', 'host 0', 'none 0', 'synced']);
    expect(seen.at(-1)).toBe('removed');
    stop.abort();
  });

  it('prunes what nobody is in', async () => {
    await service.client.createNetwork(create({ name: 'old', labels: { keep: 'no' } }), call);
    await service.client.createNetwork(create({ name: 'kept', labels: { keep: 'yes' } }), call);
    const { removed } = await service.client.pruneNetworks({ labels: [], excludedLabels: ['keep=yes'] }, call);
    expect(removed).toEqual(['old']);
    await service.client.removeNetwork({ name: 'kept' }, call);
  });
});

function pools(pool: Partial<proto.IpamPool>): proto.Ipam {
  return proto.Ipam.fromPartial({ pools: [pool] });
}
