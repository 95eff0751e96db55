import { describe, expect, it } from 'vitest';
import { serviceNames } from '@flotilla/config';
import { calls, startOrder, stopOrder } from './start-order.js';

describe('order of services', () => {
  it('starts what is asked first, then callees before callers', () => {
    const { gateway, first, rest } = startOrder(serviceNames);
    expect([...gateway, ...first]).toEqual(['api-gateway', 'container']);
    expect([...gateway, ...first, ...rest].sort()).toEqual([...serviceNames].sort());
    for (const service of rest) {
      for (const callee of calls[service]) expect(rest.indexOf(callee)).toBeLessThan(rest.indexOf(service));
    }
  });

  it('stops callers before callees', () => {
    const groups = stopOrder(serviceNames);
    const turn = (service: string) => groups.findIndex((group) => group.some((each) => each === service));
    expect(groups.flat().sort()).toEqual([...serviceNames].sort());
    for (const service of serviceNames) {
      for (const callee of calls[service]) expect(turn(service)).toBeLessThan(turn(callee));
    }
  });

  it('leaves out what runs elsewhere', () => {
    expect(startOrder(['container', 'volume'])).toEqual({ gateway: [], first: ['container'], rest: ['volume'] });
    expect(stopOrder(['container', 'volume'])).toEqual([['container'], ['volume']]);
  });
});
