import { execFileSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ChildProcess } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { network as proto } from '@flotilla/proto';
import { waitFor } from '@flotilla/testkit';
import { NetworkUnderTest, call, endpoint, isRoot, newContainerId, port } from './network-under-test.js';
import { answering, ask, resolve } from './probe.js';

describe.skipIf(!isRoot)('the network service, killed and restarted (needs root)', () => {
  let service: NetworkUnderTest;
  let host: string;
  const children: ChildProcess[] = [];
  const inside = (containerId: string): string => join(service.execRoot, 'netns', containerId);

  beforeEach(async () => {
    service = await NetworkUnderTest.start();
    host = `/run/netns/${service.host.name}`;
    await service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name: 'app' }), call);
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill();
    await service[Symbol.asyncDispose]();
  });

  it('keeps traffic while it is dead, and takes everything up again', async () => {
    const web = await service.prepare({
      containerName: 'web',
      endpoints: [endpoint('app')],
      ports: [port(80, { hostPort: 8080 }), port(53, { protocol: 'udp', hostPort: 5300 })],
    });
    const peer = await service.prepare({ containerName: 'peer', endpoints: [endpoint('app')] });
    children.push(await answering(inside(web.containerId), 'tcp', '0.0.0.0', 80, 'web'));
    children.push(await answering(inside(web.containerId), 'udp', '0.0.0.0', 53, 'web'));
    const before = service.traces();
    const networksBefore = (await service.client.listNetworks({}, call)).networks;
    for (let round = 0; round < 3; round++) {
      await service.kill();
      expect(ask(host, 'tcp', '127.0.0.1', 8080)).toMatch(/^web /);
      expect(ask(host, 'udp', '127.0.0.1', 5300)).toMatch(/^web /);
      await service.startProcess();
      expect(resolve(inside(peer.containerId), 'web')).toEqual([web.endpoints[0]?.ipv4Address]);
      expect(ask(host, 'tcp', '::1', 8080)).toMatch(/^web /);
      expect(service.traces()).toEqual(before);
      expect((await service.client.listNetworks({}, call)).networks).toEqual(networksBefore);
    }
    const again = await service.prepare({
      containerId: web.containerId,
      containerName: 'web',
      endpoints: [endpoint('app')],
      ports: [port(80, { hostPort: 8080 }), port(53, { protocol: 'udp', hostPort: 5300 })],
    });
    expect(again.endpoints).toEqual(web.endpoints);
    await expect(
      service.prepare({ containerName: 'late', endpoints: [endpoint('app')], ports: [port(1, { hostPort: 8080 })] }),
    ).rejects.toThrow('port is already allocated');
  });

  it('removes what a crash left without a record, and forgets records without a namespace', async () => {
    const kept = await service.prepare({ endpoints: [endpoint('app')], ports: [port(80, { hostPort: 8090 })] });
    const lost = await service.prepare({ endpoints: [endpoint('app')], ports: [port(80, { hostPort: 8091 })] });
    await service.kill();
    rmSync(join(service.execRoot, 'network', 'sandboxes', lost.containerId));
    const table = service.traces().tables[0] ?? '';
    service.host.run('nft', [
      `add element ${table.replace('table ', '')} published4_any { tcp . 9999 : 10.88.1.77 . 80 }`,
    ]);
    await service.startProcess();
    expect(service.traces().namespaces).toEqual([kept.containerId]);
    expect(service.ruleset()).toContain('8090');
    expect(service.ruleset()).not.toContain('8091');
    expect(service.ruleset()).not.toContain('9999');
    await waitFor(() => service.traces().links.filter((link) => link.startsWith('veth')).length === 1, {
      what: 'the lost interface to go',
    });
    const { network } = await service.client.getNetwork({ name: 'app' }, call);
    expect(network?.endpoints.map(({ containerId }) => containerId)).toEqual([kept.containerId]);
    const next = await service.prepare({ endpoints: [endpoint('app')] });
    expect(next.endpoints[0]?.ipv4Address).toBe(lost.endpoints[0]?.ipv4Address);
  });

  it('makes again what somebody deleted by hand: a bridge with its ports, an interface with its routes', async () => {
    const web = await service.prepare({ endpoints: [endpoint('bridge')] });
    const cut = await service.prepare({
      endpoints: [endpoint('app'), endpoint('bridge')],
      ports: [port(80, { hostPort: 8080 })],
    });
    const lost = await service.prepare({ endpoints: [endpoint('app')] });
    for (const { containerId } of [web, cut])
      children.push(await answering(inside(containerId), 'tcp', '0.0.0.0', 80, 'web'));
    const routes = (): string => service.inContainer(cut.containerId, 'ip', ['route']);
    const before = routes();
    service.host.run('ip', ['link', 'del', 'tbr0']);
    service.inContainer(cut.containerId, 'ip', ['link', 'del', 'eth0']);
    execFileSync('umount', [inside(lost.containerId)]);
    await service.kill();
    await service.startProcess();
    expect(ask(host, 'tcp', web.endpoints[0]?.ipv4Address ?? '', 80)).toMatch(/^web /);
    expect(ask(host, 'tcp', '127.0.0.1', 8080)).toMatch(/^web /);
    expect(routes()).toBe(before);
    expect(service.traces().namespaces.sort()).toEqual([web.containerId, cut.containerId].sort());
    // And what belongs to no namespace any more can be released, and had again.
    await service.client.releaseSandbox({ containerId: lost.containerId }, call);
    await service.prepare({ containerId: lost.containerId, endpoints: [endpoint('app')] });
  });

  it('starts with damaged records: what they are of is gone, the rest is served', async () => {
    await service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name: 'spoiled' }), call);
    const { network: spoiled } = await service.client.getNetwork({ name: 'spoiled' }, call);
    const web = await service.prepare({
      containerName: 'web',
      endpoints: [endpoint('app'), endpoint('spoiled')],
      ports: [port(80, { hostPort: 8080 })],
    });
    const broken = await service.prepare({ endpoints: [endpoint('app')], ports: [port(80, { hostPort: 8081 })] });
    const empty = await service.prepare({ endpoints: [endpoint('app')] });
    children.push(await answering(inside(web.containerId), 'tcp', '0.0.0.0', 80, 'web'));
    await service.stop();
    await service.writeRaw({
      sandboxes: { [broken.containerId]: '{"containerId":"', [empty.containerId]: '{}' },
      networks: { [spoiled?.id ?? '']: Buffer.from([0xff, 0, 1]).toString('latin1') },
    });
    await service.startProcess();
    expect(service.log.split('a damaged record is set aside').length - 1).toBe(3);
    expect(ask(host, 'tcp', '127.0.0.1', 8080)).toMatch(/^web /);
    expect(resolve(inside(web.containerId), 'web')).toEqual([web.endpoints[0]?.ipv4Address]);
    const names = (await service.client.listNetworks({}, call)).networks.map(({ name }) => name);
    expect(names.sort()).toEqual(['app', 'bridge', 'host', 'none']);
    expect(service.traces().namespaces).toEqual([web.containerId]);
    expect(service.ruleset()).not.toContain('8081');
    for (const { containerId } of [broken, empty, web]) await service.client.releaseSandbox({ containerId }, call);
    const again = await service.prepare({
      containerId: broken.containerId,
      endpoints: [endpoint('app')],
      ports: [port(80, { hostPort: 8081 })],
    });
    expect(again.endpoints[0]?.ipv4Address).not.toBe('');
    await service.client.releaseSandbox({ containerId: broken.containerId }, call);
    await service.kill();
    await service.startProcess();
    expect(service.log.split('a damaged record is set aside').length - 1).toBe(3); // not a second time
  });

  it('survives being killed while networks come and go', async () => {
    const create = (name: string, index: number) =>
      service.client.createNetwork(
        proto.CreateNetworkRequest.fromPartial({ name, ipam: { pools: [{ subnet: `10.89.${index}.0/24` }] } }),
        { ...call, requestId: `create-${name}` },
      );
    const old = Array.from({ length: 6 }, (_, index) => `old-${index}`);
    await Promise.all(old.map((name, index) => create(name, index)));
    const going = old.map((name) => service.client.removeNetwork({ name }, { ...call, requestId: `remove-${name}` }));
    const coming = Array.from({ length: 6 }, (_, index) => create(`new-${index}`, 100 + index));
    await Promise.race([...going, ...coming]);
    await service.kill();
    await service.startProcess();
    await Promise.all([...going, ...coming]); // the callers ask again by themselves
    const { networks } = await service.client.listNetworks({}, call);
    const made = networks.filter(({ predefined }) => !predefined);
    expect(made.map(({ name }) => name).sort()).toEqual(['app', ...coming.map((_, index) => `new-${index}`)]);
    const bridges = made.map(({ id }) => `br-${id.slice(0, 12)}`).sort();
    const links = (): string[] => service.traces().links.filter((name) => name.startsWith('br-'));
    await waitFor(() => links().length === bridges.length, { what: 'the bridges of removed networks to go' });
    expect(links().sort()).toEqual(bridges);
    const named = new Set(service.ruleset().match(/br-[0-9a-f]{12}/g));
    expect([...named].sort()).toEqual(bridges);
  });

  it('survives being killed in the middle of many set-ups', async () => {
    const ids = Array.from({ length: 12 }, newContainerId);
    const running = ids.map((containerId, index) =>
      service.prepare({ containerId, endpoints: [endpoint('app')], ports: [port(80, { hostPort: 9100 + index })] }),
    );
    await Promise.race(running);
    await service.kill();
    await service.startProcess();
    // The callers retry by themselves.
    const prepared = await Promise.all(running);
    expect(new Set(prepared.map(({ endpoints }) => endpoints[0]?.ipv4Address)).size).toBe(12);
    expect([...service.traces().namespaces].sort()).toEqual([...ids].sort());
    for (const containerId of ids) await service.client.releaseSandbox({ containerId }, call);
    await waitFor(() => !service.traces().links.some((link) => link.startsWith('veth')), { what: 'interfaces to go' });
    expect(service.ruleset()).not.toMatch(/\. 91\d\d :/);
  });

  it('leaves nothing when it stops without sandboxes, and all when there is one', async () => {
    const { containerId } = await service.prepare({ endpoints: [endpoint('app')] });
    await service.stop();
    expect(service.traces().tables).toHaveLength(1);
    expect(service.traces().links).toContain('tbr0');
    await service.startProcess();
    await service.client.releaseSandbox({ containerId }, call);
    await service.stop();
    expect(service.traces()).toEqual({ links: [], tables: [], namespaces: [] });
    await service.startProcess();
    expect((await service.client.getNetwork({ name: 'app' }, call)).network?.ipam?.pools[0]?.subnet).toBe(
      '10.88.1.0/24',
    );
  });

  it('writes the event of each change with the change', async () => {
    const { containerId } = await service.prepare({ endpoints: [endpoint('app')] });
    await expect(
      service.prepare({ endpoints: [endpoint('app')], ports: [port(80, { protocol: 'sctp' })] }),
    ).rejects.toThrow();
    await service.client.releaseSandbox({ containerId }, call);
    const { network: app } = await service.client.getNetwork({ name: 'app' }, call);
    await service.client.removeNetwork({ name: 'app' }, call);
    const events = await service.stopAndReadEvents();
    const attributes = { name: 'app', type: 'bridge' };
    expect(events.map(({ type, action, actorId, attributes: own }) => ({ type, action, actorId, own }))).toEqual([
      { type: 'network', action: 'create', actorId: app?.id, own: attributes },
      { type: 'network', action: 'connect', actorId: app?.id, own: { ...attributes, container: containerId } },
      { type: 'network', action: 'disconnect', actorId: app?.id, own: { ...attributes, container: containerId } },
      { type: 'network', action: 'destroy', actorId: app?.id, own: attributes },
    ]);
  });

  it.each(['0', '1'])('hairpins with bridge-nf-call-iptables=%s', async (value) => {
    try {
      service.host.run('sysctl', ['-w', `net.bridge.bridge-nf-call-iptables=${value}`]);
    } catch {
      return; // br_netfilter is not loaded: there is only one way for packets to take
    }
    const web = await service.prepare({ endpoints: [endpoint('app')], ports: [port(80, { hostPort: 8080 })] });
    const peer = await service.prepare({ endpoints: [endpoint('app')] });
    children.push(await answering(inside(web.containerId), 'tcp', '0.0.0.0', 80, 'web'));
    const gateway = web.endpoints[0]?.gateway ?? '';
    for (const { containerId } of [web, peer]) expect(ask(inside(containerId), 'tcp', gateway, 8080)).toMatch(/^web /);
  });

  it('runs beside another engine in the same namespace', async () => {
    const other = await NetworkUnderTest.start(
      { bridge: 'tbr1', defaultAddressPools: [{ base: '10.89.0.0/16', size: 24 }] },
      service.host,
    );
    try {
      const mine = await service.prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8080 })] });
      const theirs = await other.prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8081 })] });
      await expect(
        other.prepare({ endpoints: [endpoint('bridge')], ports: [port(80, { hostPort: 8080 })] }),
      ).rejects.toThrow('address already in use');
      children.push(await answering(inside(mine.containerId), 'tcp', '0.0.0.0', 80, 'mine'));
      children.push(await answering(join(other.execRoot, 'netns', theirs.containerId), 'tcp', '0.0.0.0', 80, 'theirs'));
      expect(ask(host, 'tcp', '127.0.0.1', 8080)).toMatch(/^mine /);
      expect(ask(host, 'tcp', '127.0.0.1', 8081)).toMatch(/^theirs /);
      await other.kill();
      await other.startProcess();
      expect(ask(host, 'tcp', '127.0.0.1', 8080)).toMatch(/^mine /);
      await other.client.releaseSandbox({ containerId: theirs.containerId }, call);
    } finally {
      await other[Symbol.asyncDispose]();
    }
    expect(service.traces().tables).toHaveLength(1);
    expect(service.traces().links).not.toContain('tbr1');
  });
});
