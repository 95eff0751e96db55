import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { network as proto } from '@flotilla/proto';
import { createNetworkNamespace, waitFor } from '@flotilla/testkit';
import type { NetworkNamespace } from '@flotilla/testkit';
import { NetworkUnderTest, call, endpoint, isRoot, port } from './network-under-test.js';
import { answering, ask, asking } from './probe.js';

const hostAddress = '192.0.2.1';

/** A chain as firewalld has it: all is accepted, but for what comes to the rule at its end. */
const firewalldLike = `
table inet firewalld
delete table inet firewalld
table inet firewalld {
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    counter reject with icmpx admin-prohibited
  }
}`;

describe.skipIf(!isRoot)('the firewall among others (needs root)', () => {
  let host: NetworkNamespace;
  let remote: NetworkNamespace;
  let service: NetworkUnderTest;
  const children: ChildProcess[] = [];

  beforeEach(() => {
    host = createNetworkNamespace();
    remote = createNetworkNamespace();
    host.run('ip', ['link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', remote.name]);
    host.run('ip', ['addr', 'add', `${hostAddress}/24`, 'dev', 'up0']);
    host.run('ip', ['link', 'set', 'up0', 'up']);
    remote.run('ip', ['addr', 'add', '192.0.2.2/24', 'dev', 'eth0']);
    remote.run('ip', ['link', 'set', 'eth0', 'up']);
    remote.run('ip', ['route', 'add', '10.88.0.0/16', 'via', hostAddress]);
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill();
    await service[Symbol.asyncDispose]();
    remote[Symbol.dispose]();
    host[Symbol.dispose]();
  });

  const startService = async (block: Parameters<typeof NetworkUnderTest.start>[0] = {}): Promise<void> => {
    service = await NetworkUnderTest.start(block, host);
  };
  const serve = async (hostPort?: number, network = 'bridge') => {
    const prepared = await service.prepare({
      endpoints: [endpoint(network)],
      ports: hostPort === undefined ? [] : [port(80, { hostPort })],
    });
    const where = join(service.execRoot, 'netns', prepared.containerId);
    children.push(await answering(where, 'tcp', '0.0.0.0', 80, 'container'));
    return { ...prepared, where, address: prepared.endpoints[0]?.ipv4Address ?? '' };
  };
  const remotely = (address: string, to: number, timeoutMs = 8000): string =>
    ask(`/run/netns/${remote.name}`, 'tcp', address, to, timeoutMs);
  const fromContainers = (where: string): string => ask(where, 'tcp', '192.0.2.2', 81);
  const table = (): string => `flotilla_${service.engineId.replaceAll('-', '').slice(0, 8)}`;
  const hasPort = (hostPort: number) => () => service.ruleset().includes(`. ${hostPort} : `);

  it('is open where others were closed before it came, and stays so when they reload or flush', async () => {
    host.run('nft', [firewalldLike]);
    host.run('iptables-nft', ['-P', 'FORWARD', 'DROP']);
    await startService();
    const web = await serve(8080);
    children.push(await answering(`/run/netns/${remote.name}`, 'tcp', '0.0.0.0', 81, 'remote'));
    const expectTraffic = (): void => {
      expect(remotely(hostAddress, 8080)).toBe('container 192.0.2.2');
      expect(fromContainers(web.where)).toBe(`remote ${hostAddress}`);
    };
    expectTraffic();
    // iptables can still read and change its table.
    expect(host.run('iptables-nft', ['-S', 'FORWARD'])).toContain('-A FORWARD -i tbr0');
    const marks = (): number => service.ruleset().split(`comment "${table()} tbr0"`).length - 1;
    expect(marks()).toBe(4);

    host.run('nft', [firewalldLike]);
    host.run('iptables-nft', ['-F']);
    await waitFor(() => marks() === 4, { what: 'our rules in the reloaded chains' });
    expectTraffic();

    for (const destruction of [
      ['flush', 'ruleset'],
      ['delete', 'table', 'inet', table()],
    ]) {
      host.run('nft', destruction);
      await waitFor(hasPort(8080), { what: `the table after ${destruction.join(' ')}` });
      expectTraffic();
    }
    host.run('nft', ['add', 'table', 'ip', 'late']);
    host.run('nft', ['add chain ip late closed { type filter hook forward priority -5; policy drop; }']);
    await waitFor(() => marks() === 2, { what: 'our rules in the new chain' });
    expectTraffic();
    host.run('nft', ['chain ip late closed { policy accept; }']);
    await waitFor(() => marks() === 0, { what: 'our rules to leave the chain that is open' });
  });

  it('is open where legacy iptables closes', async (t) => {
    try {
      host.run('iptables-legacy', ['-P', 'FORWARD', 'DROP']);
    } catch {
      t.skip('a kernel or a machine without legacy iptables: nobody can close it there');
    }
    await startService();
    const rules = (): string[] =>
      host
        .run('iptables-legacy', ['-S', 'FORWARD'])
        .split('\n')
        .filter((rule) => rule.includes(table()));
    await serve(8080);
    expect(remotely(hostAddress, 8080)).toBe('container 192.0.2.2');
    expect(rules()).toHaveLength(2);
    host.run('iptables-legacy', ['-F', 'FORWARD']);
    await waitFor(() => rules().length === 2, { what: 'our rules in the legacy chain' });
    expect(remotely(hostAddress, 8080)).toBe('container 192.0.2.2');
    host.run('iptables-legacy', ['-P', 'FORWARD', 'ACCEPT']);
    await waitFor(() => rules().length === 0, { what: 'our rules to leave the open chain' });
  });

  it("asks the user's rules first, and keeps them over restarts and while it is off", async () => {
    await startService();
    const { containerId } = await serve(8080);
    host.run('nft', ['add', 'rule', 'inet', table(), 'user', 'ip', 'saddr', '192.0.2.2', 'counter', 'drop']);
    const userRules = (): string => host.run('nft', ['list', 'chain', 'inet', table(), 'user']);
    expect(remotely(hostAddress, 8080, 500)).toBe('TIMEOUT');
    await service.kill();
    await service.startProcess();
    expect(remotely(hostAddress, 8080, 500)).toBe('TIMEOUT');
    await service.client.releaseSandbox({ containerId }, call);
    await service.stop();
    expect(userRules()).toContain('192.0.2.2');
    expect(service.ruleset()).not.toContain('8080');
    await service.startProcess();
    expect(userRules()).toContain('192.0.2.2');
    host.run('nft', ['flush', 'chain', 'inet', table(), 'user']);
    await serve(8081);
    expect(remotely(hostAddress, 8081)).toBe('container 192.0.2.2');
    await service.stop();
    await service.startProcess();
  });

  it.for(['0', '1'])('keeps networks apart with bridge-nf-call-iptables=%s', async (value, t) => {
    try {
      for (const family of ['iptables', 'ip6tables'])
        host.run('sysctl', ['-w', `net.bridge.bridge-nf-call-${family}=${value}`]);
    } catch {
      t.skip('br_netfilter is not loaded: there is only one way for packets to take');
    }
    await startService({ icc: false });
    for (const [name, more] of [
      ['one', {}],
      ['two', {}],
      ['inner', { internal: true }],
    ] as const)
      await service.client.createNetwork(proto.CreateNetworkRequest.fromPartial({ name, ...more }), call);
    const [alone, published, one, two, inner] = await Promise.all([
      serve(),
      serve(8080),
      serve(8081, 'one'),
      serve(undefined, 'two'),
      serve(undefined, 'inner'),
    ]);
    const answers = (from: { where: string }, to: string, at = 80): Promise<string> =>
      asking(from.where, 'tcp', to, at, 1000);
    const silences = [
      answers(alone, published.address), // no communication between neighbours
      answers(published, alone.address),
      answers(one, two.address),
      answers(two, one.address),
      answers(one, published.address),
      answers(one, inner.address),
      answers(inner, one.address),
      answers(inner, hostAddress, 8080),
      // From another machine that has a route to the containers: not past the published port.
      ...[published, one, two, inner].map(({ address }) =>
        asking(`/run/netns/${remote.name}`, 'tcp', address, 80, 1000),
      ),
    ];
    for (const answer of await Promise.all(silences)) expect(['TIMEOUT', 'ENETUNREACH']).toContain(answer);
    // Through a published port, as from anywhere: everyone but those inside.
    const through = await Promise.all([
      answers(one, one.address),
      asking(`/run/netns/${remote.name}`, 'tcp', hostAddress, 8081),
      ...[alone, published, one, two].flatMap(({ where }) =>
        [8080, 8081].map((hostPort) => asking(where, 'tcp', hostAddress, hostPort)),
      ),
    ]);
    for (const answer of through) expect(answer).toMatch(/^container /);
    // Services of the machine are for containers, its loopback is not.
    children.push(await answering(`/run/netns/${host.name}`, 'tcp', '0.0.0.0', 82, 'machine'));
    expect(ask(one.where, 'tcp', hostAddress, 82)).toMatch(/^machine /);
    service.inContainer(one.containerId, 'ip', [
      'route',
      'add',
      '127.0.0.2/32',
      'via',
      one.endpoints[0]?.gateway ?? '',
    ]);
    service.inContainer(one.containerId, 'ip', ['addr', 'del', '127.0.0.1/8', 'dev', 'lo']);
    service.inContainer(one.containerId, 'sysctl', ['-qw', 'net.ipv4.conf.eth0.route_localnet=1']);
    expect(await answers(one, '127.0.0.2', 82)).toBe('TIMEOUT');
  });
});
