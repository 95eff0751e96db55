import { container, network } from '@flotilla/proto';
import { describe, expect, it } from 'vitest';
import { completeContainer, type ContainerRecord } from '../store/container-record.js';
import { dependenciesAmong, dependentsIn } from './dependencies.js';
import type { NetworkPlan } from './network-plan.js';

function record(
  name: string,
  hostConfig: Partial<container.HostConfig> = {},
  more: { labels?: Record<string, string>; network?: NetworkPlan } = {},
): ContainerRecord {
  const shown = container.Container.fromPartial({
    id: idOf(name),
    name,
    config: { labels: more.labels ?? {} },
    hostConfig,
  });
  const internals = { network: more.network ?? { kind: 'none' } } as ContainerRecord['internals'];
  return { container: completeContainer(shown), internals, revision: 1n };
}

const idOf = (name: string): string => Buffer.from(name).toString('hex').padEnd(64, '0');

function needs(records: ContainerRecord[]): Record<string, string[]> {
  const names = new Map(records.map(({ container: { id, name } }) => [id, name]));
  const found = [...dependenciesAmong(records)].map(([id, others]): [string, string[]] => [
    names.get(id) ?? '',
    [...others].map((other) => names.get(other) ?? '').sort(),
  ]);
  return Object.fromEntries(found.filter(([, others]) => others.length > 0));
}

const compose = (service: string, dependsOn = '') => ({
  labels: {
    'com.docker.compose.project': 'shop',
    'com.docker.compose.service': service,
    'com.docker.compose.depends_on': dependsOn,
  },
});

describe('who needs whom', () => {
  it('follows links, shared namespaces and volumes', () => {
    const front = network.EndpointRequest.fromPartial({ network: 'front', links: ['db:d'] });
    expect(
      needs([
        record('a', { links: ['db:alias', '/cache:c'] }),
        record('b', {}, { network: { kind: 'container', target: idOf('db') } }),
        record('c', { pidMode: 'container:db', ipcMode: `container:${idOf('cache')}` }),
        record('d', { volumesFrom: ['db:ro', 'cache'] }),
        record('e', {}, { network: { kind: 'networks', endpoints: [front] } }),
        record('f', { volumesFrom: [idOf('cache').slice(0, 10)] }),
        record('db'),
        record('cache'),
      ]),
    ).toEqual({ a: ['cache', 'db'], b: ['db'], c: ['cache', 'db'], d: ['cache', 'db'], e: ['db'], f: ['cache'] });
  });

  it("follows compose's labels within a project, to every container of a service", () => {
    const other = { ...compose('db').labels, 'com.docker.compose.project': 'another' };
    expect(
      needs([
        record('web', {}, compose('web', 'db:service_healthy:true,cache:service_started:false')),
        record('db-1', {}, compose('db')),
        record('db-2', {}, compose('db')),
        record('cache-1', {}, compose('cache')),
        record('db-x', {}, { labels: other }),
      ]),
    ).toEqual({ web: ['cache-1', 'db-1', 'db-2'] });
  });

  it('leaves out whoever is gone, and oneself', () => {
    expect(needs([record('a', { links: ['nobody:x', 'a:self'], pidMode: 'host' })])).toEqual({});
  });

  it('has no circles', () => {
    const circle = [
      record('a', { links: ['b:b'] }),
      record('b', { links: ['c:c'] }),
      record('c', { links: ['a:a', 'd:d'] }),
      record('d'),
    ];
    expect(needs(circle)).toEqual({ a: ['b'], b: ['c'], c: ['d'] });
  });

  it('takes a chain of any length', () => {
    const chain = Array.from({ length: 3000 }, (_, at) => record(`n${at}`, { links: [`n${at + 1}:x`] }));
    const found = dependenciesAmong(chain);
    expect([...found.values()].filter((others) => others.size === 1)).toHaveLength(2999);
  });

  it('turns round for stops', () => {
    const dependents = dependentsIn(dependenciesAmong([record('a', { links: ['b:b'] }), record('b')]));
    expect([...(dependents.get(idOf('b')) ?? [])]).toEqual([idOf('a')]);
  });
});
