import { describe, expect, it } from 'vitest';
import { serviceNames } from '@flotilla/config';
import { calls, startOrder, stopOrder } from './start-order.js';

describe('order of services', () => {
  it('starts the gateway first, then callees before callers', () => {
    const order = startOrder(serviceNames);
    expect(order[0]).toBe('api-gateway');
    expect([...order].sort()).toEqual([...serviceNames].sort());
    for (const service of order.slice(1)) {
      for (const callee of calls[service]) expect(order.indexOf(callee)).toBeLessThan(order.indexOf(service));
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
    expect(startOrder(['container', 'volume'])).toEqual(['volume', 'container']);
    expect(stopOrder(['container', 'volume'])).toEqual([['container'], ['volume']]);
  });
});
