import { spawnSync } from 'node:child_process';
import { isDeepStrictEqual } from 'node:util';
import {
  NF_INET_FORWARD,
  Nftables,
  addressBytes,
  concatenated,
  expressions,
  interfaceNameKey,
  isNetlinkError,
  nftMessages,
  uint16Network,
} from '@flotilla/netlink';
import type { BaseChain, Expression, SetElement, TableName } from '@flotilla/netlink';
import { internal } from '@flotilla/errors';
import { bridgedTraffic } from './host-sysctls.js';
import { firewallRuleset, firewallSets } from './firewall-ruleset.js';
import type { BridgedTraffic } from './firewall-ruleset.js';
import { LegacyFirewall } from './legacy-firewall.js';
import type { AddressWithPrefix, BridgeSpec, FirewallSettings, Publication } from './kernel-operations.js';

const protocolNumbers = { tcp: 6, udp: 17 } as const;
const searchPath = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

/** Of putting things right while others change them too; the next look goes on. */
const maxAttempts = 3;

type SetName = (typeof firewallSets)[keyof typeof firewallSets];

/**
 * The engine's own nftables table, and what it should hold.
 *
 * Nothing else on the machine is touched but one thing: a foreign forward chain that drops what it does not know, by policy
 * or by a rule, gets accept rules for our bridges, marked with the table's name, because an accept in our table cannot
 * overrule a drop in another.
 */
export class Firewall {
  readonly #nft = new Nftables();
  readonly #table: TableName;
  readonly #bridges = new Map<string, BridgeSpec>();
  readonly #publications = new Map<string, Publication>();
  readonly #legacy: LegacyFirewall;
  /** As it was when the ruleset was loaded. */
  #bridged: BridgedTraffic | undefined;
  #ruleCount = 0;
  /** Transactions of ours since somebody began to count; each makes a generation. */
  #ownCommits = 0;
  /** Generation of the ruleset at which everything was as it should be. */
  #verified: number | undefined;

  readonly #settings: FirewallSettings;

  constructor(table: string, settings: FirewallSettings) {
    this.#settings = settings;
    this.#table = { family: 'inet', name: table };
    this.#legacy = new LegacyFirewall(table, settings);
  }

  /** Load the ruleset; elements that an earlier run of the engine left in the sets stay until `synchronize`. */
  load(): void {
    this.#bridged = bridgedTraffic();
    const { status, stderr, error } = spawnSync('nft', ['-f', '-'], {
      input: firewallRuleset(this.#table.name, this.#settings, this.#bridged),
      encoding: 'utf8',
      env: { ...process.env, PATH: searchPath },
    });
    if (status !== 0) {
      throw internal(`cannot load the firewall table ${this.#table.name}: nft: ${error?.message ?? stderr.trim()}`);
    }
    this.#ownCommits++;
    this.#ruleCount = this.#countOwnRules();
    this.#verified = undefined;
  }

  /** Say what should be there, without touching the kernel. */
  expect(bridges: readonly BridgeSpec[], publications: readonly Publication[]): void {
    this.#bridges.clear();
    this.#publications.clear();
    for (const bridge of bridges) this.#bridges.set(bridge.name, bridge);
    for (const publication of publications) this.#publications.set(publicationKey(publication), publication);
    this.#verified = undefined;
  }

  setBridge(bridge: BridgeSpec): void {
    const before = this.#bridges.get(bridge.name);
    this.#bridges.set(bridge.name, bridge);
    this.#changeBridge(before, bridge);
  }

  deleteBridge(name: string): void {
    const before = this.#bridges.get(name);
    if (this.#bridges.delete(name)) this.#changeBridge(before, undefined);
  }

  /**
   * Take publications away and add others, in one transaction.
   *
   * @throws NetlinkError EEXIST when an added one is taken; nothing has happened then
   */
  replacePublications(remove: readonly Publication[], add: readonly Publication[]): void {
    if (remove.length + add.length === 0) return;
    this.verify();
    this.#changing(() => {
      const removals = remove.filter((publication) => this.#publications.has(publicationKey(publication)));
      this.#nft.commit(
        [...this.#messages(nftMessages.deleteElements, removals), ...this.#messages(nftMessages.addElements, add)],
        'publish ports',
      );
    });
    for (const publication of remove) this.#publications.delete(publicationKey(publication));
    for (const publication of add) this.#publications.set(publicationKey(publication), publication);
    // Several publications may open the same port of a container: who needs what is found out by looking at all.
    if ([...remove, ...add].some((one) => directElements(one, this.#settings).length > 0)) this.synchronize();
  }

  /** Put everything right if anybody has changed the ruleset since the last look. */
  verify(): void {
    this.#legacy.openForward([...this.#bridges.keys()]);
    // br_netfilter comes and goes with others (Kubernetes, libvirt), and says so nowhere.
    if (!isDeepStrictEqual(this.#bridged, bridgedTraffic())) this.load();
    if (this.#verified !== undefined && this.#nft.generation() === this.#verified) return;
    this.synchronize();
  }

  /** Make table, sets, maps and foreign chains hold what they should. */
  synchronize(): void {
    this.#verified = undefined;
    for (let attempt = 1; attempt <= maxAttempts; attempt++) {
      this.#ownCommits = 0;
      const before = this.#nft.generation();
      try {
        if (this.#countOwnRules() !== this.#ruleCount) this.load();
        this.#synchronizeSets();
        this.#openForeignChains();
      } catch (error) {
        // A foreign flush came in between.
        if (attempt === maxAttempts || !isNetlinkError(error, 'ENOENT', 'EEXIST')) throw error;
        continue;
      }
      const after = this.#nft.generation();
      // More changes than ours: what was read first may not be true any more.
      if (after !== before + this.#ownCommits) continue;
      this.#verified = after;
      return;
    }
  }

  /** Take the table and our rules in foreign chains away. A table in which the user has rules stays, empty but for them. */
  remove(): void {
    this.expect([], []);
    this.#openForeignChains();
    if (this.#nft.rules(this.#table, 'user').length > 0) {
      this.#synchronizeSets();
      return;
    }
    try {
      this.#nft.commit([nftMessages.deleteTable(this.#table)], 'delete table');
    } catch (error) {
      if (!isNetlinkError(error, 'ENOENT')) throw error;
    }
  }

  close(): void {
    this.#nft.close();
  }

  /** Rules of the table without those that the user put into the chain that is his. */
  #countOwnRules(): number {
    return this.#nft.rules(this.#table).length - this.#nft.rules(this.#table, 'user').length;
  }

  /** Run one transaction of ours and keep `#verified` in step, unless somebody else came in between. */
  #changing(commit: () => void): void {
    const before = this.#verified;
    this.#verified = undefined;
    commit();
    const after = this.#nft.generation();
    if (before !== undefined && after === before + 1) this.#verified = after;
  }

  /**
   * Change what one bridge has in the sets. Only when others have been at work everything is looked at: there may be
   * hundreds of networks.
   */
  #changeBridge(before: BridgeSpec | undefined, after: BridgeSpec | undefined): void {
    const generation = this.#verified;
    if (generation === undefined || generation !== this.#nft.generation()) {
      this.synchronize();
      return;
    }
    const textOf = ([set, element]: [SetName, SetElement]): string => `${set} ${elementKey(element)}`;
    const old = [...(before === undefined ? [] : bridgeElements(before))];
    const wanted = [...(after === undefined ? [] : bridgeElements(after))];
    const [oldTexts, wantedTexts] = [new Set(old.map(textOf)), new Set(wanted.map(textOf))];
    const surplus = old.filter((one) => !wantedTexts.has(textOf(one)));
    const missing = wanted.filter((one) => !oldTexts.has(textOf(one)));
    this.#verified = undefined;
    this.#ownCommits = 0;
    try {
      this.#commit(
        [
          ...surplus.map(([set, element]) => nftMessages.deleteElements(this.#table, set, [element])),
          ...missing.map(([set, element]) => nftMessages.addElements(this.#table, set, [element])),
        ],
        'change a bridge in the firewall sets',
      );
      this.#openForeignChains();
    } catch (error) {
      if (!isNetlinkError(error, 'ENOENT', 'EEXIST')) throw error;
      this.synchronize();
      return;
    }
    const now = this.#nft.generation();
    if (now === generation + this.#ownCommits) this.#verified = now;
    else this.synchronize();
  }

  #synchronizeSets(): void {
    const desired = this.#desiredElements();
    const changes: Buffer[] = [];
    for (const name of Object.values(firewallSets)) {
      const wanted = new Map((desired.get(name) ?? []).map((element) => [elementKey(element), element]));
      const present = this.#nft.elements(this.#table, name);
      if (present === undefined) {
        this.load();
        this.#synchronizeSets();
        return;
      }
      const surplus = present.filter((element) => !wanted.has(elementKey(element)));
      const found = new Set(present.map(elementKey));
      const missing = [...wanted].filter(([key]) => !found.has(key)).map(([, element]) => element);
      if (surplus.length > 0) changes.push(nftMessages.deleteElements(this.#table, name, surplus));
      if (missing.length > 0) changes.push(nftMessages.addElements(this.#table, name, missing));
    }
    this.#commit(changes, 'synchronize firewall sets');
  }

  #desiredElements(): Map<SetName, SetElement[]> {
    const sets = new Map<SetName, SetElement[]>();
    const add = (name: SetName, element: SetElement): void => {
      const list = sets.get(name);
      if (list === undefined) sets.set(name, [element]);
      else list.push(element);
    };
    for (const bridge of this.#bridges.values()) {
      for (const [set, element] of bridgeElements(bridge)) add(set, element);
    }
    for (const publication of this.#publications.values()) {
      for (const [set, element] of translationElements(publication)) add(set, element);
      for (const [set, element] of directElements(publication, this.#settings)) add(set, element);
    }
    return sets;
  }

  #messages(
    encode: (table: TableName, set: string, list: readonly SetElement[]) => Buffer,
    publications: readonly Publication[],
  ): Buffer[] {
    return publications.flatMap(translationElements).map(([set, element]) => encode(this.#table, set, [element]));
  }

  #openForeignChains(): void {
    this.#legacy.openForward([...this.#bridges.keys()], { isNow: true });
    for (const chain of this.#nft.chains()) {
      if (!this.#isForeignForward(chain)) continue;
      const rules = this.#nft.rules(chain.table, chain.name);
      const ours = rules.filter(({ comment }) => comment.startsWith(this.#table.name));
      const isClosed = chain.policy === 'drop' || rules.some(({ refusesAll }) => refusesAll);
      const names = isClosed ? [...this.#bridges.keys()] : [];
      // Bridges come and go seldom: rewriting all of ours when they are wrong is simple and atomic.
      if (
        sameList(
          ours.map(({ comment }) => comment),
          names.flatMap((name) => [this.#mark(name), this.#mark(name)]),
        )
      ) {
        continue;
      }
      const accept = (matches: readonly Expression[], name: string): Buffer =>
        nftMessages.insertRule(chain.table, chain.name, [...matches, ...expressions.accept()], this.#mark(name));
      this.#commit(
        [
          ...ours.map((rule) => nftMessages.deleteRule(chain.table, chain.name, rule.handle)),
          ...names.map((name) => accept(expressions.inputInterfaceIs(name), name)),
          ...names.map((name) => accept(expressions.outputInterfaceIs(name), name)),
        ],
        'accept our bridges in a foreign forward chain',
      );
    }
  }

  #commit(changes: readonly Buffer[], what: string): void {
    if (changes.length === 0) return;
    this.#nft.commit(changes, what);
    this.#ownCommits++;
  }

  /** Comment of a rule that opens a foreign chain for a bridge. */
  #mark(bridge: string): string {
    return `${this.#table.name} ${bridge}`;
  }

  #isForeignForward(chain: BaseChain): boolean {
    const { ipv4, ipv6 } = this.#settings;
    const { family } = chain.table;
    if ((family === 'ip' && !ipv4) || (family === 'ip6' && !ipv6)) return false;
    return chain.hook === NF_INET_FORWARD && chain.type === 'filter' && chain.table.name !== this.#table.name;
  }
}

function sameList(some: readonly string[], others: readonly string[]): boolean {
  return JSON.stringify([...some].sort()) === JSON.stringify([...others].sort());
}

function elementKey({ key, keyEnd, value }: SetElement): string {
  return [key, keyEnd, value].map((part) => part?.toString('hex') ?? '').join(' ');
}

function hairpinElement(bridge: string, { address, prefixLength }: AddressWithPrefix): [SetName, SetElement] {
  const bytes = addressBytes(address);
  const name = interfaceNameKey(bridge);
  const edge = (fill: 0 | 0xff): Buffer =>
    Buffer.from(
      bytes.map((byte, index) => {
        const hostBits = 0xff >> Math.min(8, Math.max(0, prefixLength - index * 8));
        return (byte & ~hostBits & 0xff) | (fill & hostBits);
      }),
    );
  const element = { key: concatenated(edge(0), name), keyEnd: concatenated(edge(0xff), name) };
  return [bytes.length === 4 ? firewallSets.hairpin4 : firewallSets.hairpin6, element];
}

/** What a bridge has in the sets. */
function* bridgeElements(bridge: BridgeSpec): Generator<[SetName, SetElement]> {
  const key = interfaceNameKey(bridge.name);
  yield [firewallSets.bridges, { key }];
  for (const address of bridge.addresses) yield hairpinElement(bridge.name, address);
  if (bridge.isInternal) yield [firewallSets.internal, { key }];
  if (bridge.areNeighboursAllowed) yield [firewallSets.neighbours, { key: concatenated(key, key) }];
  else yield [firewallSets.separated, { key }];
  yield* familyElements(bridge);
}

/** What a bridge's two families ask for beyond its membership. */
function* familyElements(bridge: BridgeSpec): Generator<[SetName, SetElement]> {
  const key = interfaceNameKey(bridge.name);
  for (const [family, { source, isUnprotected, isRouted }] of [
    [4, bridge.ipv4],
    [6, bridge.ipv6],
  ] as const) {
    if (source === 'masquerade') yield [firewallSets[`masqueraded${family}`], { key }];
    else if (source !== undefined)
      yield [firewallSets[`source${family}`], { key, value: addressBytes(source.address) }];
    if (isUnprotected) yield [firewallSets[`unprotected${family}`], { key }];
    if (isRouted) yield [firewallSets[`routed${family}`], { key }];
  }
}

function publicationKey({ protocol, hostAddress, hostPort, targetAddress, targetPort }: Publication): string {
  return hostPort === 0 ? `${protocol} ${targetAddress} ${targetPort}` : `${protocol} ${hostAddress} ${hostPort}`;
}

/** The element of the port maps; none for what is not translated. */
function translationElements(publication: Publication): [SetName, SetElement][] {
  if (publication.hostPort === 0) return [];
  const protocol = protocolKey(publication);
  const port = uint16Network(publication.hostPort);
  const value = concatenated(addressBytes(publication.targetAddress), uint16Network(publication.targetPort));
  const host = addressBytes(publication.hostAddress);
  const isV4 = host.length === 4;
  if (host.every((byte) => byte === 0)) {
    return [
      [isV4 ? firewallSets.published4Any : firewallSets.published6Any, { key: concatenated(protocol, port), value }],
    ];
  }
  const key = concatenated(host, protocol, port);
  return [[isV4 ? firewallSets.published4 : firewallSets.published6, { key, value }]];
}

/** What lets a published port be reached under the container's own address. */
function directElements(publication: Publication, settings: FirewallSettings): [SetName, SetElement][] {
  const target = addressBytes(publication.targetAddress);
  const family = target.length === 4 ? 4 : 6;
  const port = concatenated(target, protocolKey(publication), uint16Network(publication.targetPort));
  if (publication.hostPort === 0 || settings.isDirectRoutingAllowed)
    return [[firewallSets[`direct${family}`], { key: port }]];
  return (publication.trustedInterfaces ?? []).map((name) => [
    firewallSets[`trusted${family}`],
    { key: concatenated(interfaceNameKey(name), port) },
  ]);
}

const protocolKey = ({ protocol }: Publication): Buffer => Buffer.from([protocolNumbers[protocol]]);
