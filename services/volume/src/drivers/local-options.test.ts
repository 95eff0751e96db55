import { describe, expect, it } from 'vitest';
import { MS_BIND, MS_NODEV, MS_PRIVATE, MS_RDONLY, MS_REC } from '@flotilla/sys';
import { checkLocalName } from './local-name.js';
import { checkLocalOptions, localMount, sizeLimit } from './local-options.js';

describe('local volume names', () => {
  it.each(['ab', 'data', 'a.b_c-d', '0x', 'a'.repeat(255), 'A..B'])('takes %s', (name) => {
    expect(() => checkLocalName(name)).not.toThrow();
  });

  it.each(['../up', '/abs', 'a/b', '.hidden', '-x', '_x', 'sp ace', 'a\nb', 'é', 'é1', 'a\0b', ''])(
    'refuses %j',
    (name) => {
      expect(() => checkLocalName(name)).toThrow(
        'includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path',
      );
    },
  );

  it('refuses what is too short or too long', () => {
    expect(() => checkLocalName('a')).toThrow('names should be at least two alphanumeric characters');
    expect(() => checkLocalName('a'.repeat(256))).toThrow('volume name is too long');
  });
});

describe('local volume options', () => {
  it.each([
    [{}, undefined],
    [{ type: 'tmpfs', device: 'tmpfs', o: 'size=1m' }, undefined],
    [{ type: 'none', device: '/srv' }, undefined],
    [{ size: '0' }, undefined],
    [{ colour: 'red' }, 'invalid option: "colour"'],
    [{ type: 'tmpfs' }, 'missing required option: "device"'],
    [{ device: '/srv' }, 'missing required option: "type"'],
    [{ o: 'bind' }, 'missing required option: "device"'],
    [{ type: 'none', device: '' }, 'missing device in volume options'],
    [
      { type: 'none', o: 'bind', device: '..' },
      'invalid option: "device" must be an absolute path to be bound: \'..\'',
    ],
    [{ type: 'none', o: 'ro,rbind', device: 'srv/../..' }, 'must be an absolute path to be bound'],
    [{ type: 'nfs', device: ':/export', o: 'addr=nas' }, undefined],
    [{ type: 'nfs', device: '/export', o: 'addr=nas' }, 'must be "[server]:/path"'],
    [{ type: 'nfs4', device: ':/export', o: 'ro' }, 'must name the server, as "addr=<server>"'],
    [{ type: 'nfs', device: ':/export', o: 'addr=a,addr=b' }, 'must name the server'],
    [{ size: '10m' }, 'quota size requested but no quota support'],
    [{ size: 'ten' }, "invalid size: 'ten'"],
    [{ type: 'none', device: '/a\0b' }, 'invalid option: "device" contains a NUL character'],
  ])('%j: %s', (options: Record<string, string>, message) => {
    if (message === undefined) expect(() => checkLocalOptions(options, false)).not.toThrow();
    else expect(() => checkLocalOptions(options, false)).toThrow(message);
  });

  it('take a size where it can be enforced, and only of files of their own', () => {
    expect(() => checkLocalOptions({ size: '10m' }, true)).not.toThrow();
    expect(() => checkLocalOptions({ size: '10m', type: 'tmpfs', device: 'tmpfs' }, true)).toThrow('it has no effect');
    expect(sizeLimit({ size: '1.5 GiB' })).toBe(1.5 * 1024 ** 3);
    expect(sizeLimit({})).toBe(0);
  });

  it('turns options of mount(8) into flags, propagation and data', () => {
    expect(localMount({})).toBeUndefined();
    expect(localMount({ size: '0' })).toBeUndefined();
    expect(localMount({ type: 'none', device: '/srv', o: 'bind,ro' })).toEqual({
      ...{ device: '/srv', fstype: 'none', data: '', propagation: 0 },
      flags: MS_BIND | MS_RDONLY,
    });
    expect(localMount({ type: 'none', device: '/srv', o: 'rbind,rprivate,ro,rw' })).toEqual({
      ...{ device: '/srv', fstype: 'none', data: '' },
      flags: MS_BIND | MS_REC,
      propagation: MS_PRIVATE | MS_REC,
    });
    expect(localMount({ type: 'nfs', device: ':/export', o: 'addr=10.0.0.1,nodev,,vers=4' })).toEqual({
      ...{ device: ':/export', fstype: 'nfs', propagation: 0 },
      flags: MS_NODEV,
      data: 'addr=10.0.0.1,vers=4',
    });
  });
});
