import { describe, expect, it } from 'vitest';
import { events } from '@flotilla/proto';
import { OrderingWindow } from './ordering-window.js';

const at = (timeNs: bigint) => events.Event.fromPartial({ id: `e-${timeNs}`, timeNs });
const times = (list: events.Event[]) => list.map(({ timeNs }) => Number(timeNs));

describe('OrderingWindow', () => {
  it('orders what arrives within the window and holds back what may still be overtaken', () => {
    const window = new OrderingWindow(50);
    window.add(at(3n), 1000, 1000);
    window.add(at(1n), 1010, 1010);
    window.add(at(2n), 1020, 1020);
    expect(times(window.takeReceivedBefore(1040))).toEqual([]);
    expect(times(window.takeReceivedBefore(1060))).toEqual([1]);
    expect(times(window.takeReceivedBefore(1070))).toEqual([2, 3]);
    expect(window.size).toBe(0);
  });

  it('goes by the time of the stream in history', () => {
    const window = new OrderingWindow(50);
    window.add(at(2n), 1000, 9_000_000);
    window.add(at(1n), 1001, 9_000_000);
    expect(times(window.takeStreamedBefore(1051))).toEqual([1, 2]);
  });

  it('gives all at the end, and keeps arrival order at equal times', () => {
    const window = new OrderingWindow(50);
    window.add(at(5n), 1, 1);
    window.add({ ...at(5n), id: 'second' }, 1, 1);
    window.add(at(4n), 1, 1);
    expect(window.takeAll().map(({ id }) => id)).toEqual(['e-4', 'e-5', 'second']);
  });
});
