import { describe, expect, it } from 'vitest';
import { withRootOf } from './file-capabilities.js';

const words = '0010000000000000'.repeat(2);
const second = Buffer.from(`01000002${words}`, 'hex');
const third = Buffer.from(`01000003${words}400d0300`, 'hex');

describe('withRootOf', () => {
  it.each([
    ['names a root', second, () => 200_000, third],
    ['leaves the machine’s root out', third, () => 0, second],
    ['names another', third, (uid: number) => uid + 1, Buffer.from(`01000003${words}410d0300`, 'hex')],
    ['keeps what is the same', second, (uid: number) => uid, second],
    ['keeps what it does not know', Buffer.from('010000010000', 'hex'), () => 7, Buffer.from('010000010000', 'hex')],
    ['keeps another revision of the same length', Buffer.alloc(20), () => 7, Buffer.alloc(20)],
  ])('%s', (_what, value, uidOf, expected) => {
    expect(withRootOf(value, uidOf).toString('hex')).toBe(expected.toString('hex'));
  });
});
