import * as packet from 'dns-packet';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import type { EndpointRecord, NetworkRecord, SandboxRecord } from '../store/records.js';
import { Forwarder } from './forwarder.js';
import { NameIndex } from './name-index.js';
import { Resolver } from './resolver.js';

const network = (id: string, more: Partial<NetworkRecord> = {}): NetworkRecord => ({
  ...{ id, name: id, createdAtNs: '0', driver: 'bridge', scope: 'local', internal: false, attachable: false },
  ...{ ingress: false, enableIpv4: true, enableIpv6: true, options: {}, labels: {}, configOnly: false, configFrom: '' },
  ...{ predefined: false, hasUserSubnet: false, ipam: { driver: 'default', options: {}, pools: [] } },
  ...more,
});
const endpoint = (networkId: string, names: string[], more: Partial<EndpointRecord> = {}): EndpointRecord => ({
  ...{ id: `${networkId}-${names.join('-')}`, networkId, macAddress: '', ipv4Address: '', ipv4PrefixLength: 24 },
  ...{ gateway: '', ipv6Address: '', ipv6PrefixLength: 64, ipv6Gateway: '', aliases: [], dnsNames: names, links: [] },
  ...{ driverOptions: {}, gatewayPriority: 0, interfaceName: '', hostInterfaceName: '' },
  ...more,
});
const sandbox = (containerId: string, ...endpoints: EndpointRecord[]): SandboxRecord => ({
  ...{ containerId, containerName: containerId, hostname: '', domainName: '', isHostMode: false, endpoints, ports: [] },
  ...{ dnsServers: [], dnsSearch: [], dnsOptions: [], extraHosts: [], requestHash: '', preparedAtMs: 0 },
});

describe('the resolver', () => {
  let names: NameIndex;
  let resolver: Resolver;
  const completing = new Set<string>();

  beforeEach(() => {
    completing.clear();
    const networks = [network('app'), network('back'), network('inner', { internal: true }), network('bridge')];
    const bridge = networks.at(-1);
    if (bridge) bridge.predefined = true;
    names = new NameIndex((id) => networks.find((one) => one.id === id));
    // Nobody to ask: what is not known here fails at once.
    resolver = new Resolver({
      ...{ names, forwarder: new Forwarder() },
      upstreams: () => [],
      completesNames: (id) => completing.has(id),
    });
  });

  const ask = async (
    asker: string,
    name: string,
    type: packet.RecordType = 'A',
  ): Promise<{ code: string; data: unknown[] }> => {
    const query = packet.encode({ type: 'query', id: 1, questions: [{ name, type, class: 'IN' }] });
    const bytes = await resolver.answer(asker, query, 'udp');
    if (bytes === undefined) return { code: 'SILENCE', data: [] };
    const answer = packet.decode(bytes) as packet.DecodedPacket & { rcode: string };
    const data = (answer.answers ?? []).map((record) => ('data' in record ? record.data : undefined));
    return { code: answer.rcode, data };
  };
  const known = (...data: string[]) => ({ code: 'NOERROR', data });
  const failure = { code: 'SERVFAIL', data: [] };

  it('knows the names of the networks of the asker, and of no others', async () => {
    names.set(sandbox('web', endpoint('app', ['Web', 'www'], { ipv4Address: '10.0.0.2', ipv6Address: 'fd00:0::2' })));
    names.set(sandbox('db', endpoint('back', ['db'], { ipv4Address: '10.1.0.2' })));
    names.set(sandbox('hidden', endpoint('inner', ['hidden'], { ipv4Address: '10.2.0.2' })));
    names.set(sandbox('old', endpoint('bridge', [], { ipv4Address: '10.3.0.2' })));
    for (const name of ['web', 'WEB', 'www', 'web.app', 'Web.App'])
      expect(await ask('web', name)).toEqual(known('10.0.0.2'));
    expect(await ask('web', 'web', 'AAAA')).toEqual(known('fd00::2'));
    expect(await ask('web', 'db')).toEqual(failure);
    expect(await ask('web', 'web.back')).toEqual(failure);
    expect(await ask('db', 'web.app')).toEqual(failure);
    expect(await ask('old', 'web')).toEqual(failure);
    expect(await ask('nobody', 'web')).toEqual(failure);
    expect(await ask('web', '2.0.0.10.in-addr.arpa', 'PTR')).toEqual(known('web.app'));
    expect(await ask('web', `2.${'0.'.repeat(27)}0.0.d.f.ip6.arpa`, 'PTR')).toEqual(known('web.app'));
    expect(await ask('web', '2.0.1.10.in-addr.arpa', 'PTR')).toEqual(failure);
  });

  it('answers with nothing, not with an error, for what a known name does not have', async () => {
    names.set(sandbox('web', endpoint('app', ['web'], { ipv4Address: '10.0.0.2' })));
    for (const type of ['AAAA', 'MX', 'TXT', 'SRV'] as const) expect(await ask('web', 'web', type)).toEqual(known());
  });

  it('looks into the next network for an address that the first does not have', async () => {
    names.set(
      sandbox(
        'web',
        endpoint('app', ['web'], { ipv4Address: '10.0.0.2' }),
        endpoint('back', ['web'], { ipv6Address: 'fd01::2' }),
      ),
    );
    expect(await ask('web', 'web')).toEqual(known('10.0.0.2'));
    expect(await ask('web', 'web', 'AAAA')).toEqual(known('fd01::2'));
  });

  it('gives every bearer of a name a turn at being first, whatever else is asked in between', async () => {
    const addresses = ['10.0.0.2', '10.0.0.3', '10.0.0.4'];
    addresses.forEach((ipv4Address, index) =>
      names.set(
        sandbox(`c${index}`, endpoint('app', [`c${index}`, 'all'], { ipv4Address, ipv6Address: `fd00::${index}` })),
      ),
    );
    const firsts = new Set<unknown>();
    while (firsts.size < addresses.length) {
      const { data } = await ask('c0', 'all');
      expect([...data].sort()).toEqual(addresses);
      firsts.add(data[0]);
      await ask('c0', 'all', 'AAAA');
    }
  });

  it('follows names that change', async () => {
    names.set(sandbox('web', endpoint('app', ['web'], { ipv4Address: '10.0.0.2' })));
    names.set(sandbox('api', endpoint('app', ['api'], { ipv4Address: '10.0.0.3', links: ['web:store'] })));
    expect(await ask('api', 'store')).toEqual(known('10.0.0.2'));
    expect(await ask('web', 'store')).toEqual(failure);
    names.set(sandbox('web', endpoint('app', ['renamed'], { ipv4Address: '10.0.0.9' })));
    expect(await ask('api', 'web')).toEqual(failure);
    expect(await ask('api', 'renamed')).toEqual(known('10.0.0.9'));
    names.delete('web');
    expect(await ask('api', 'renamed')).toEqual(failure);
    expect(await ask('api', '9.0.0.10.in-addr.arpa', 'PTR')).toEqual(failure);
  });

  it('leaves names without dots to the resolver of a container that completes them', async () => {
    names.set(sandbox('web', endpoint('app', ['web'], { ipv4Address: '10.0.0.2' })));
    completing.add('web');
    expect(await ask('web', 'nobody')).toEqual(known());
    expect(await ask('web', 'nobody', 'AAAA')).toEqual(known());
    expect(await ask('web', 'nobody', 'TXT')).toEqual(failure);
    expect(await ask('web', 'nobody.test')).toEqual(failure);
    expect(await ask('web', 'web')).toEqual(known('10.0.0.2'));
  });

  it('answers damaged queries with something readable, or not at all', async () => {
    names.set(sandbox('web', endpoint('app', ['web'], { ipv4Address: '10.0.0.2' })));
    const sound = packet.encode({
      type: 'query',
      id: 7,
      questions: [{ name: 'web', type: 'A', class: 'IN' }],
    });
    const damage = fc.tuple(
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
      fc.nat(sound.length),
      fc.uint8Array({ maxLength: 40 }),
    );
    await fc.assert(
      fc.asyncProperty(damage, fc.constantFrom('udp', 'tcp'), async ([changes, length, tail], transport) => {
        const query = Buffer.concat([sound.subarray(0, length), tail]);
        for (const [at, value] of changes) if (query.length > 0) query[at % query.length] = value;
        const answer = await resolver.answer('web', query, transport);
        if (answer === undefined) return;
        const decoded = packet.decode(answer);
        expect(decoded.type).toBe('response');
        expect(decoded.id).toBe(query.readUInt16BE(0));
        expect(answer.length).toBeLessThanOrEqual(512);
      }),
      { numRuns: 2000 },
    );
  });
});
