import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isEngineError } from '@flotilla/errors';
import { network as proto } from '@flotilla/proto';
import { waitFor } from '@flotilla/testkit';
import { NetworkUnderTest, call, endpoint, isRoot, newContainerId, port } from './network-under-test.js';

const rounds = Number(process.env['CHAOS_ROUNDS'] ?? 6);

describe.skipIf(!isRoot)('the network service, killed at random in the middle of changes (needs root)', () => {
  let service: NetworkUnderTest;
  beforeAll(async () => {
    service = await NetworkUnderTest.start();
    await service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name: 'app' }), call);
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
  });

  const ofNetworks = async () => (await service.client.listNetworks({}, call)).networks;
  const veths = (): string[] => service.traces().links.filter((link) => link.startsWith('veth'));

  /** Kernel and records tell the same. */
  const expectAgreement = async (): Promise<void> => {
    const networks = await ofNetworks();
    const endpoints = networks.flatMap((one) => one.endpoints);
    const holders = new Set(endpoints.map(({ containerId }) => containerId));
    expect(new Set(service.traces().namespaces)).toEqual(holders);
    await waitFor(() => veths().length === endpoints.length, { what: 'an interface for each endpoint, and no other' });
    const bridges = networks.filter(({ driver }) => driver === 'bridge').length;
    const present = (): string[] => service.traces().links.filter((link) => /^(br-|tbr0)/.test(link));
    await waitFor(() => present().length === bridges, { what: 'a bridge for each network, and no other' });
    for (const containerId of holders) {
      const inside = service.inContainer(containerId, 'ip', ['-o', '-4', 'addr', 'show']);
      for (const one of endpoints.filter((other) => other.containerId === containerId))
        expect(inside).toContain(` ${one.ipv4Address}/`);
      const routes = service.inContainer(containerId, 'ip', ['route', 'show', 'default']).trim().split('\n');
      expect(routes).toHaveLength(1);
      const gateways = endpoints.filter((one) => one.containerId === containerId).map(({ gateway }) => gateway);
      expect(gateways).toContain(routes[0]?.split(' ')[2]);
    }
  };

  it(`agrees with the kernel after each of ${rounds} kills, and leaves nothing at the end`, async () => {
    const before = service.traces();
    for (let round = 0; round < rounds; round++) {
      const steady = newContainerId();
      const moving = newContainerId();
      const ports = [port(80, { hostPort: 9000 }), port(53, { protocol: 'udp', hostPort: 9001 })];
      await service.prepare({ containerId: steady, endpoints: [endpoint('app')], ports });
      await service.prepare({ containerId: moving, endpoints: [endpoint('bridge')] });
      const requestId = (what: string) => ({ ...call, requestId: `${what}-${round}` });
      const changes = [
        service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name: 'new' }), requestId('create')),
        service.prepare({ endpoints: [endpoint('app'), endpoint('bridge')] }),
        service.prepare({ endpoints: [endpoint('app')], ports: [port(80)] }),
        service.client
          .connectSandbox(
            { containerId: steady, endpoint: endpoint('bridge', { gatewayPriority: 1 }) },
            requestId('in'),
          )
          .then(() =>
            service.client.disconnectSandbox({ containerId: steady, network: 'app', force: false }, requestId('out')),
          ),
        service.client
          .connectSandbox({ containerId: moving, endpoint: endpoint('app') }, requestId('first'))
          .then(() => service.client.releaseSandbox({ containerId: moving }, call)),
        service.client
          .createNetwork(proto.CreateNetworkRequest.fromPartial({ name: 'short' }), requestId('short'))
          .then(() => service.client.removeNetwork({ name: 'short' }, requestId('remove'))),
      ];
      const settled = Promise.allSettled(changes);
      await delay(randomInt(60)); // the instant of the kill
      await service.kill();
      await service.startProcess();
      // The callers ask again by themselves. What was done by the call that got no answer may be refused now.
      for (const one of await settled) if (one.status === 'rejected') expect(isEngineError(one.reason)).toBe(true);
      await expectAgreement();
      const { released } = await service.client.reconcileHolders({ liveContainerIds: [steady], revision: 0n }, call);
      expect(released).not.toContain(steady);
      for (const { name, endpoints } of await ofNetworks()) {
        for (const { containerId } of endpoints) await service.client.releaseSandbox({ containerId }, call);
        if (['new', 'short'].includes(name)) await service.client.removeNetwork({ name }, call);
      }
      await expect.poll(() => service.traces()).toEqual(before);
      expect(service.ruleset()).not.toMatch(/900[01]/);
    }
  }, 180_000);
});
