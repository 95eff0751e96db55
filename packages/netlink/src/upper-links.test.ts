import { closeSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { NamespaceSwitch, Rtnetlink, linkMessages, removeNamespace, upperLinkMessages } from './index.js';
import { decodeAttributes, decodeNested, readText } from './attributes.js';
import * as rt from './rtnetlink-constants.js';

const HEADERS = 16 + 16;

/** What a link message says, by the numbers of linux/if_link.h. */
function decoded(message: Buffer) {
  const attributes = decodeAttributes(message, HEADERS);
  const info = decodeNested(attributes, rt.IFLA_LINKINFO);
  const data = [...decodeNested(info, rt.IFLA_INFO_DATA)].map(([type, bytes]) => [
    type,
    bytes.readUIntLE(0, bytes.length),
  ]);
  const number = (type: number): number | undefined => attributes.get(type)?.readUInt32LE(0);
  return {
    type: message.readUInt16LE(4),
    isUp: (message.readUInt32LE(24) & 1) === 1,
    name: readText(attributes.get(rt.IFLA_IFNAME)),
    lower: number(rt.IFLA_LINK),
    namespaceFd: number(rt.IFLA_NET_NS_FD),
    group: number(rt.IFLA_GROUP),
    hasMac: attributes.has(rt.IFLA_ADDRESS),
    kind: readText(info.get(rt.IFLA_INFO_KIND)),
    data: Object.fromEntries(data) as Record<string, number>,
  };
}

describe('links on other links, encoded', () => {
  const place = { name: 'eth0', lower: 7, namespaceFd: 9 };
  const shown = { type: 16, isUp: false, name: 'eth0', lower: 7, namespaceFd: 9, group: undefined };

  it.each([
    ['private', 1],
    ['vepa', 2],
    ['bridge', 4],
    ['passthru', 8],
  ] as const)('macvlan in mode %s', (mode, number) => {
    const message = upperLinkMessages.createMacvlan({ ...place, mode, mac: '02:42:0a:00:00:02' });
    expect(decoded(message)).toEqual({ ...shown, hasMac: true, kind: 'macvlan', data: { 1: number } });
  });

  it.each([
    ['l2', 'bridge', 0, 0],
    ['l3', 'private', 1, 1],
    ['l3s', 'vepa', 2, 2],
  ] as const)('ipvlan in mode %s with flag %s', (mode, flag, modeNumber, flagNumber) => {
    expect(decoded(upperLinkMessages.createIpvlan({ ...place, mode, flag }))).toEqual({
      ...shown,
      hasMac: false,
      kind: 'ipvlan',
      data: { 1: modeNumber, 2: flagNumber },
    });
  });

  it('vlan and dummy, up and in a group', () => {
    const made = { type: 16, isUp: true, namespaceFd: undefined, group: 77, hasMac: false };
    expect(decoded(upperLinkMessages.createVlan({ name: 'eth0.10', lower: 7, id: 10, group: 77 }))).toEqual({
      ...made,
      name: 'eth0.10',
      lower: 7,
      kind: 'vlan',
      data: { 1: 10 },
    });
    expect(decoded(upperLinkMessages.createDummy({ name: 'dm-0', group: 77 }))).toEqual({
      ...made,
      name: 'dm-0',
      lower: undefined,
      kind: 'dummy',
      data: {},
    });
  });
});

describe.skipIf(process.getuid?.() !== 0)('links on other links, in the kernel (needs root)', () => {
  it('tells whether the kernel has a kind, and makes what it has', () => {
    using home = new NamespacesOfTest();
    home.inHost(() => {
      using socket = new Rtnetlink();
      const refusal = (kind: 'macvlan' | 'ipvlan' | 'vlan'): string => {
        try {
          socket.apply([upperLinkMessages.probe(kind)], kind);
        } catch (error) {
          return (error as { code: string }).code;
        }
        return 'made';
      };
      const before = socket.links().map(({ name }) => name);
      for (const kind of ['macvlan', 'ipvlan', 'vlan'] as const) expect(['EINVAL', 'ENOTSUP']).toContain(refusal(kind));
      expect(socket.links().map(({ name }) => name)).toEqual(before);
      socket.apply([linkMessages.createBridge({ name: 'lower0', mac: '02:42:0a:09:00:01' })], 'lower');
      if (refusal('macvlan') === 'ENOTSUP') return;
      const lower = socket.link('lower0').index;
      const place = { name: 'eth0', lower, namespaceFd: home.container, mac: '02:42:0a:09:00:02' };
      socket.apply([upperLinkMessages.createMacvlan({ ...place, mode: 'bridge' })], 'macvlan');
      home.inContainer(() => {
        using inside = new Rtnetlink();
        expect(inside.link('eth0')).toMatchObject({ kind: 'macvlan', mac: '02:42:0a:09:00:02', isUp: false, lower });
      });
    });
  });
});

class NamespacesOfTest implements Disposable {
  readonly #switch = new NamespaceSwitch();
  readonly #directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'netlink-'));
  readonly #host = this.#switch.create(join(this.#directory, 'host'));
  readonly container = this.#switch.create(join(this.#directory, 'container'));

  inHost(fn: () => void): void {
    this.#switch.inNamespace(this.#host, fn);
  }

  /** From `inHost`: the way back leads to the test's own namespace. */
  inContainer(fn: () => void): void {
    this.#switch.inNamespace(this.container, fn);
  }

  [Symbol.dispose](): void {
    closeSync(this.#host);
    closeSync(this.container);
    for (const name of ['host', 'container']) removeNamespace(join(this.#directory, name));
    this.#switch.close();
    rmSync(this.#directory, { recursive: true });
  }
}
