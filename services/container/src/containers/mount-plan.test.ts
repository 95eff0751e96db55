import type { container } from '@flotilla/proto';
import { describe, expect, it } from 'vitest';
import { inheritMounts, planMounts } from './mount-plan.js';

const none = { binds: [], mounts: [], tmpfs: {}, volumeDriver: '' };
const request = (fields: Partial<container.MountRequest>): container.MountRequest => ({
  type: 'bind',
  source: '',
  target: '/t',
  readOnly: false,
  consistency: '',
  ...fields,
});

describe('planMounts', () => {
  it('tells binds from volumes and reads their modes', () => {
    const plan = planMounts({ ...none, binds: ['/host/:/a', 'data:/b:ro', '/x:/c:rw,rshared', '/anon'] }, [], []);
    expect(plan).toMatchObject([
      {
        type: 'bind',
        source: '/host',
        destination: '/a',
        readOnly: false,
        propagation: 'rprivate',
        createSource: true,
      },
      { type: 'volume', name: 'data', destination: '/b', readOnly: true, copy: true },
      { type: 'bind', source: '/x', propagation: 'rshared' },
      { type: 'volume', name: '', destination: '/anon' },
    ]);
  });

  it('makes anonymous volumes only where nothing else is mounted', () => {
    const plan = planMounts(
      { ...none, binds: ['named:/data/'], tmpfs: { '/run': 'size=1m,mode=700' } },
      ['/data', '/run', '/more'],
      [],
    );
    expect(plan.map((mount) => [mount.type, mount.destination])).toEqual([
      ['volume', '/data'],
      ['tmpfs', '/run'],
      ['volume', '/more'],
    ]);
  });

  it('lets own mounts win over inherited ones', () => {
    const theirs = planMounts({ ...none, binds: ['one:/a', 'two:/b'] }, [], []);
    const plan = planMounts({ ...none, binds: ['mine:/b'] }, ['/a'], inheritMounts('f00', theirs, 'ro'));
    expect(plan).toMatchObject([
      { name: 'one', destination: '/a', readOnly: true, inheritedFrom: 'f00', mode: '' },
      { name: 'mine', destination: '/b', readOnly: false },
    ]);
    expect(plan).toHaveLength(2);
    expect(inheritMounts('c0c', plan, '')).toMatchObject([{ inheritedFrom: 'f00' }, { inheritedFrom: 'c0c' }]);
  });

  it.each([
    ['', "invalid volume specification: ''"],
    ['/a:/b:ro:x', "invalid volume specification: '/a:/b:ro:x'"],
    [':/b', "invalid volume specification: ':/b'"],
    ['/a:/b:what', 'invalid mode: what'],
    ['/a:/b:ro,rw', 'invalid mode: ro,rw'],
    ['/a:b', 'invalid mount config for type "bind": invalid mount path: \'b\' mount path must be absolute'],
    [
      '/a:/',
      "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
    ],
    ['/a:/x/..', "destination can't be '/'"],
  ])('refuses bind %j', (bind, message) => {
    expect(() => planMounts({ ...none, binds: [bind] }, [], [])).toThrow(message);
  });

  it('refuses two mounts at one place', () => {
    expect(() => planMounts({ ...none, binds: ['/a:/c', '/b:/c/'] }, [], [])).toThrow('Duplicate mount point: /c');
    expect(() => planMounts({ ...none, binds: ['/a:/c'], tmpfs: { '/c': '' } }, [], [])).toThrow(
      'Duplicate mount point: /c',
    );
  });

  it('reads and checks Mounts', () => {
    expect(
      planMounts(
        {
          ...none,
          mounts: [
            request({ source: '/h', readOnly: true }),
            request({ type: 'tmpfs', target: '/tmp', tmpfsOptions: { sizeBytes: 1024n, mode: 0o1777, options: [] } }),
            request({ type: 'volume', source: 'v', target: '/v' }),
          ],
        },
        [],
        [],
      ),
    ).toMatchObject([
      { type: 'bind', source: '/h', readOnly: true, createSource: false },
      { type: 'tmpfs', options: ['size=1024', 'mode=1777'], isShown: true },
      { type: 'volume', name: 'v', copy: true },
    ]);
    const refused = (fields: Partial<container.MountRequest>) => () =>
      planMounts({ ...none, mounts: [request(fields)] }, [], []);
    expect(refused({})).toThrow('invalid mount config for type "bind": field Source must not be empty');
    expect(refused({ source: '/a', target: '' })).toThrow('field Target must not be empty');
    expect(refused({ source: 'a' })).toThrow("invalid mount path: 'a' mount path must be absolute");
    expect(refused({ type: 'odd' })).toThrow('mount type unknown: "odd"');
    expect(refused({ type: 'tmpfs', source: '/x' })).toThrow('field Source must not be specified');
  });

  it('takes images, always read-only', () => {
    const image = (fields: Partial<container.MountRequest>) =>
      planMounts({ ...none, mounts: [request({ type: 'image', source: 'web:1', target: '/i', ...fields })] }, [], []);
    expect(image({ imageOptions: { subpath: 'a/b' } })).toEqual([
      { type: 'image', image: 'web:1', subpath: 'a/b', destination: '/i', readOnly: true, mode: '' },
    ]);
    const invalid = 'invalid mount config for type "image": ';
    expect(() => image({ source: '' })).toThrow(`${invalid}field Source must not be empty`);
    for (const subpath of ['/a', '../a', 'a/../../b']) {
      expect(() => image({ imageOptions: { subpath } })).toThrow(
        `${invalid}subpath must be a relative path within the volume`,
      );
    }
    expect(() => image({ tmpfsOptions: { sizeBytes: 1n, mode: 0, options: [] } })).toThrow(
      `${invalid}field TmpfsOptions must not be specified`,
    );
    expect(() =>
      planMounts({ ...none, mounts: [request({ source: '/h', imageOptions: { subpath: '' } })] }, [], []),
    ).toThrow('invalid mount config for type "bind": field ImageOptions must not be specified');
    const [mount] = inheritMounts('f00', image({}), '');
    expect(mount).toMatchObject({ type: 'image', readOnly: true });
  });
});
