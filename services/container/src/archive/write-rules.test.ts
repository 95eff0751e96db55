import { describe, expect, it } from 'vitest';
import { refuseReadOnly } from './write-rules.js';

describe('refuseReadOnly', () => {
  const mounts = [
    { destination: '/data', readOnly: true },
    { destination: '/data/rw', readOnly: false },
    { destination: '/data/rw/ro', readOnly: true },
  ];
  it.each([
    ['/', false, undefined],
    ['/', true, 'container rootfs is marked read-only'],
    ['/database', true, 'container rootfs is marked read-only'],
    ['/data', false, 'mounted volume is marked read-only'],
    ['/data/sub', true, 'mounted volume is marked read-only'],
    ['/data/rw', true, undefined],
    ['/data/rw/sub', true, undefined],
    ['/data/rw/ro/sub', false, 'mounted volume is marked read-only'],
  ])('%s with a read-only root: %s', (directory, readOnlyRootfs, refusal) => {
    const check = (): void => refuseReadOnly({ mounts, readOnlyRootfs }, directory);
    if (refusal === undefined) expect(check).not.toThrow();
    else expect(check).toThrow(expect.objectContaining({ kind: 'permissionDenied', message: refusal }));
  });
});
