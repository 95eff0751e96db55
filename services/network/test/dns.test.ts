import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { network as proto } from '@flotilla/proto';
import { waitFor } from '@flotilla/testkit';
import { askAllAtOnce, askDns, askFromPortZero, hostileClient, nameServers } from './dns-probe.js';
import { NetworkUnderTest, call, endpoint, isRoot } from './network-under-test.js';

describe.skipIf(!isRoot)('the name server of containers (needs root)', () => {
  let service: NetworkUnderTest;
  const children: ChildProcess[] = [];
  const held: string[] = [];

  beforeAll(async () => {
    service = await NetworkUnderTest.start();
    for (const name of ['one', 'two'])
      await service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name }), call);
    const host = `/run/netns/${service.host.name}`;
    children.push(await nameServers(host, '127.0.0.1', '127.0.0.5'));
  });
  afterEach(async () => {
    for (const containerId of held.splice(0)) await service.client.releaseSandbox({ containerId }, call);
  });
  afterAll(async () => {
    for (const child of children.splice(0)) child.kill();
    await service[Symbol.asyncDispose]();
  });

  const prepare = async (request: Partial<proto.PrepareSandboxRequest>) => {
    const prepared = await service.prepare({ endpoints: [endpoint('one')], ...request });
    held.push(prepared.containerId);
    const [own] = prepared.endpoints;
    return {
      containerId: prepared.containerId,
      where: join(service.execRoot, 'netns', prepared.containerId),
      address: own?.ipv4Address ?? '',
    };
  };
  const known = (...data: string[]) => ({ code: 'NOERROR', data });
  const failure = { code: 'SERVFAIL', data: [] };

  it('answers names over both transports, as large as the asker takes', async () => {
    const asker = await prepare({ containerName: 'asker' });
    const workers = await Promise.all(
      Array.from({ length: 40 }, () => prepare({ endpoints: [endpoint('one', { aliases: ['worker'] })] })),
    );
    const all = workers.map(({ address }) => address).sort();
    const cut = await askDns(asker.where, 'worker');
    expect(cut).toMatchObject({ code: 'NOERROR', isCut: true });
    expect(cut.size).toBeLessThanOrEqual(512);
    for (const how of [{ transport: 'tcp' }, { udpSize: 1232 }]) {
      const whole = await askDns(asker.where, 'worker', how);
      expect(whole.isCut).toBe(false);
      expect([...whole.data].sort()).toEqual(all);
    }
  });

  it('answers many questions that come at once, its own names and others mixed', async () => {
    const asker = await prepare({ containerName: 'crowd' });
    const names = Array.from({ length: 120 }, (_, at) => (at % 3 === 1 ? 'example.test' : 'crowd'));
    const expected = names.map((name) => [name === 'crowd' ? asker.address : '127.0.0.1']);
    expect(await askAllAtOnce(asker.where, names)).toEqual(expected);
  });

  it('goes on after queries that cannot be answered', async () => {
    const asker = await prepare({ containerName: 'forger' });
    const before = service.pid;
    for (const name of ['forger', 'example.test']) await askFromPortZero(asker.where, name);
    expect(await askDns(asker.where, 'forger')).toMatchObject(known(asker.address));
    expect(await askDns(asker.where, 'example.test')).toMatchObject(known('127.0.0.1'));
    expect(service.pid).toBe(before);
    expect(service.log).not.toContain('fatal');
  });

  it('passes on what it does not know, over the transport of the asker', async () => {
    const asker = await prepare({});
    for (const transport of ['udp', 'tcp']) {
      expect(await askDns(asker.where, 'example.test', { transport })).toMatchObject(known('127.0.0.1'));
      expect(await askDns(asker.where, 'absent.test', { transport })).toMatchObject({ code: 'NXDOMAIN' });
      expect(await askDns(asker.where, 'broken.test', { transport })).toMatchObject(failure);
    }
    expect(await askDns(asker.where, 'big.test')).toMatchObject({ isCut: true, data: [] });
    expect((await askDns(asker.where, 'big.test', { transport: 'tcp' })).data).toHaveLength(60);
  });

  it("asks a container's own servers, the next one when one is not there or silent", async () => {
    const asker = await prepare({ dnsServers: ['127.0.0.66', '127.0.0.5'], dnsOptions: ['ndots:1'] });
    expect(await askDns(asker.where, 'example.test')).toMatchObject(known('127.0.0.5'));
    expect(await askDns(asker.where, 'single')).toMatchObject(known()); // its own resolver completes names
    const other = await prepare({ dnsServers: ['127.0.0.5', '127.0.0.1'] });
    expect(await askDns(other.where, 'single')).toMatchObject(known('127.0.0.5'));
  });

  it('says that an answer did not come, and answers everybody else meanwhile', async () => {
    const asker = await prepare({ containerName: 'impatient' });
    const neighbour = await prepare({ containerName: 'neighbour' });
    let isOver = false;
    const hanging = Promise.all(['udp', 'tcp'].map((transport) => askDns(asker.where, 'hang.test', { transport })));
    void hanging.then(() => (isOver = true));
    expect(await askDns(asker.where, 'neighbour')).toMatchObject(known(neighbour.address));
    expect(await askDns(neighbour.where, 'example.test')).toMatchObject(known('127.0.0.1'));
    expect(isOver).toBe(false);
    expect(await hanging).toMatchObject([failure, failure]);
  });

  it('withstands a hostile container: others are served, and nothing stays', async () => {
    const attacker = await prepare({ containerName: 'attacker' });
    const victim = await prepare({ containerName: 'web' });
    const descriptors = (): number => readdirSync(`/proc/${service.pid}/fd`).length;
    const before = descriptors();
    const { child, open } = await hostileClient(attacker.where, 20);
    children.push(child);
    expect(open).toBeGreaterThan(0);
    expect(open).toBeLessThanOrEqual(64);
    for (const transport of ['udp', 'tcp'])
      expect(await askDns(victim.where, 'web', { transport })).toMatchObject(known(victim.address));
    expect(await askDns(attacker.where, 'web')).toMatchObject(known(victim.address));
    const ended = once(child, 'exit');
    child.kill();
    await ended;
    await waitFor(() => descriptors() <= before, { what: 'the connections of the hostile container to go' });
  });

  it('follows a container through connect, disconnect, rename and release', async () => {
    const asker = await prepare({ endpoints: [endpoint('two')] });
    const moving = await prepare({ containerName: 'moving' });
    const { containerId } = moving;
    expect(await askDns(asker.where, 'moving')).not.toMatchObject(known(moving.address));
    const { endpoint: second } = await service.client.connectSandbox(
      { containerId, endpoint: endpoint('two', { aliases: ['alias'] }) },
      call,
    );
    for (const name of ['moving', 'alias', 'MOVING.two'])
      expect(await askDns(asker.where, name)).toMatchObject(known(second?.ipv4Address ?? ''));
    await service.client.renameSandbox({ containerId, containerName: 'moved' }, call);
    expect(await askDns(asker.where, 'moved')).toMatchObject(known(second?.ipv4Address ?? ''));
    expect(await askDns(asker.where, 'moving')).toMatchObject(known('127.0.0.1')); // the outside's business now
    await service.client.disconnectSandbox({ containerId, network: 'two', force: false }, call);
    expect(await askDns(asker.where, 'moved')).toMatchObject(known('127.0.0.1'));
    await service.client.connectSandbox({ containerId, endpoint: endpoint('two') }, call);
    expect(await askDns(asker.where, 'moved')).not.toMatchObject(known('127.0.0.1'));
    await service.client.releaseSandbox({ containerId }, call);
    expect(await askDns(asker.where, 'moved')).toMatchObject(known('127.0.0.1'));
  });
});
