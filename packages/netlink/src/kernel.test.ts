import { closeSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  Conntrack,
  NamespaceSwitch,
  Nftables,
  Rtnetlink,
  addressBytes,
  addressMessages,
  bindSocket,
  closeDescriptor,
  concatenated,
  expressions,
  linkMessages,
  nftMessages,
  removeNamespace,
  routeMessages,
  uint16Network,
} from './index.js';
import type { TableName } from './index.js';

const isRoot = process.getuid?.() === 0;
const table: TableName = { family: 'inet', name: 'unit_test' };
const tcp = Buffer.from([6]);

describe.skipIf(!isRoot)('the kernel, in a namespace of our own (needs root)', () => {
  const home = new NamespaceSwitch();
  let directory = '';
  let host = -1;
  /** A switch whose home is the test's "host" namespace is not needed: both are entered from here. */
  const inHost = <T>(fn: () => T): T => home.inNamespace(host, fn);

  beforeAll(() => {
    directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'netlink-'));
    host = home.create(join(directory, 'host'));
  });

  afterAll(() => {
    closeSync(host);
    removeNamespace(join(directory, 'host'));
    home.close();
    rmSync(directory, { recursive: true });
  });

  it('creates a bridge and a veth into another namespace, and moves packets', () => {
    const path = join(directory, 'container');
    const container = home.create(path);
    inHost(() => {
      using rt = new Rtnetlink();
      rt.apply([linkMessages.createBridge({ name: 'ub0', mac: '02:42:0a:09:00:01', mtu: 1400, group: 77 })], 'bridge');
      const bridge = rt.link('ub0');
      expect(bridge).toMatchObject({ kind: 'bridge', mtu: 1400, mac: '02:42:0a:09:00:01', group: 77, isUp: true });
      rt.apply(
        [
          addressMessages.addAddress({ linkIndex: bridge.index, address: '10.9.0.1', prefixLength: 24 }),
          addressMessages.addAddress({ linkIndex: bridge.index, address: 'fd09::1', prefixLength: 64 }),
          linkMessages.createVeth({
            name: 'uv0',
            peer: { name: 'eth0', mac: '02:42:0a:09:00:02', namespaceFd: container },
            master: bridge.index,
            mtu: 1400,
            group: 77,
          }),
          linkMessages.setBridgePort('uv0', { hairpin: true, isolated: false }),
          linkMessages.setAlias('uv0', 'alias of uv0'),
        ],
        'endpoint',
      );
      const port = rt.link('uv0');
      rt.apply([linkMessages.setForwarding(port.index, '02:42:0a:09:00:02')], 'fdb');
      expect(port).toMatchObject({ kind: 'veth', master: bridge.index, group: 77, alias: 'alias of uv0', mtu: 1400 });
      expect(rt.addresses()).toContainEqual({ linkIndex: bridge.index, address: 'fd09::1', prefixLength: 64 });
      expect(rt.links().map((link) => link.name)).toEqual(expect.arrayContaining(['lo', 'ub0', 'uv0']));
    });
    home.inNamespace(container, () => {
      using rt = new Rtnetlink();
      const eth0 = rt.link('eth0');
      expect(eth0.mac).toBe('02:42:0a:09:00:02');
      rt.apply(
        [
          linkMessages.setUp('lo'),
          linkMessages.setUp('eth0'),
          addressMessages.addAddress({ linkIndex: eth0.index, address: '10.9.0.2', prefixLength: 24 }),
          addressMessages.addAddress({ linkIndex: eth0.index, address: 'fd09::2', prefixLength: 64 }),
          routeMessages.setRoute({ gateway: '10.9.0.1' }),
          routeMessages.setRoute({ gateway: 'fd09::1' }),
        ],
        'inside',
      );
      expect(rt.routes()).toContainEqual(expect.objectContaining({ gateway: '10.9.0.1' }));
      expect(rt.routes()).toContainEqual(
        expect.objectContaining({ destination: { address: '10.9.0.0', prefixLength: 24 } }),
      );
    });
    const listeners = home.inNamespace(container, () => [
      bindSocket('tcp', '10.9.0.2', 80),
      bindSocket('tcp', 'fd09::2', 80),
    ]);
    // The kernel answers the handshake for a listener that nobody accepts on.
    const dial = `require('net').connect(80, process.argv[1]).on('connect', () => process.exit(0)).setTimeout(5000, () => process.exit(1))`;
    for (const address of ['10.9.0.2', 'fd09::2']) inHost(() => execFileSync(process.execPath, ['-e', dial, address]));
    for (const { fd } of listeners) closeDescriptor(fd);
    inHost(() => {
      using rt = new Rtnetlink();
      rt.apply([linkMessages.deleteGroup(77)], 'delete group');
      expect(rt.findLink('uv0')).toBeUndefined();
      expect(rt.findLink('ub0')).toBeUndefined();
    });
    closeSync(container);
    removeNamespace(path);
    expect(existsSync(path)).toBe(false);
  });

  it('names the refused message and keeps the socket in step', () => {
    inHost(() => {
      using rt = new Rtnetlink();
      const bad = [linkMessages.setUp('lo'), linkMessages.setUp('nosuch0'), linkMessages.setUp('lo')];
      expect(() => rt.apply(bad, 'up')).toThrow(expect.objectContaining({ code: 'ENODEV', index: 1 }) as Error);
      expect(rt.link('lo').isUp).toBe(true);
    });
  });

  it('adds map elements exclusively and atomically', () => {
    inHost(() => {
      execFileSync('nft', ['-f', '-'], {
        input: `table inet unit_test { map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }; }`,
      });
      using nft = new Nftables();
      const element = (port: number) => ({
        key: concatenated(tcp, uint16Network(port)),
        value: concatenated(addressBytes('10.9.0.2'), uint16Network(80)),
      });
      nft.commit([nftMessages.addElements(table, 'ports', [element(8080)])], 'publish');
      expect(nft.elements(table, 'ports')).toEqual([element(8080)]);
      expect(() =>
        nft.commit([nftMessages.addElements(table, 'ports', [element(8081), element(8080)])], 'publish'),
      ).toThrow(expect.objectContaining({ code: 'EEXIST' }) as Error);
      expect(nft.elements(table, 'ports')).toEqual([element(8080)]);
      const before = nft.generation();
      nft.commit([nftMessages.deleteElements(table, 'ports', [element(8080)])], 'unpublish');
      expect(nft.generation()).not.toBe(before);
      expect(nft.elements(table, 'ports')).toEqual([]);
      expect(nft.elements(table, 'nosuch')).toBeUndefined();
      expect(nft.elements({ family: 'inet', name: 'nosuch' }, 'ports')).toBeUndefined();
    });
  });

  it('makes tables, chains and rules that nft can read', () => {
    inHost(() => {
      using nft = new Nftables();
      const dns: TableName = { family: 'ip', name: 'unit_dns' };
      nft.commit(
        [
          nftMessages.addTable(dns),
          nftMessages.addBaseChain(dns, { name: 'output', type: 'nat', hook: 3, priority: -100 }),
          nftMessages.appendRule(dns, 'output', [
            ...expressions.ipv4DestinationIs(addressBytes('127.0.0.11')),
            ...expressions.protocolIs(17),
            ...expressions.destinationPortIs(53),
            ...expressions.ipv4DestinationNat(addressBytes('127.0.0.11'), 40000),
          ]),
          nftMessages.insertRule(
            dns,
            'output',
            [...expressions.outputInterfaceIs('ub0'), ...expressions.accept()],
            'ours',
          ),
        ],
        'dns table',
      );
      const listing = execFileSync('nft', ['list', 'table', 'ip', 'unit_dns'], { encoding: 'utf8' });
      expect(listing).toContain('ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40000');
      expect(listing).toContain('oifname "ub0" accept comment "ours"');
      const rules = nft.rules(dns, 'output');
      expect(rules.map((rule) => rule.comment)).toEqual(['ours', '']);
      expect(nft.chains()).toContainEqual({ table: dns, name: 'output', type: 'nat', hook: 3, policy: 'accept' });
      nft.commit([nftMessages.deleteRule(dns, 'output', rules[0]?.handle ?? 0n)], 'delete rule');
      expect(nft.rules(dns)).toHaveLength(1);
      nft.commit([nftMessages.deleteTable(dns)], 'delete table');
      expect(nft.rules(dns)).toEqual([]);
    });
  });

  it('binds sockets in the namespace and says when an address is taken', () => {
    inHost(() => {
      const first = bindSocket('tcp', '127.0.0.11', 0);
      expect(first.port).toBeGreaterThan(0);
      expect(() => bindSocket('tcp', '127.0.0.11', first.port)).toThrow(
        expect.objectContaining({ code: 'EADDRINUSE' }) as Error,
      );
      closeDescriptor(first.fd);
      const again = bindSocket('udp', '::1', 0);
      closeDescriptor(again.fd);
    });
  });

  it('forgets tracked flows', () => {
    inHost(() => {
      using conntrack = new Conntrack();
      expect(conntrack.deleteFlows(() => true)).toBeGreaterThanOrEqual(0);
    });
  });
});
