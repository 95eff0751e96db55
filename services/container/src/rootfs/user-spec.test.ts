import { describe, expect, it } from 'vitest';
import { resolveUser } from './user-spec.js';

const passwd = 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\nodd:x:zz:1::/:\n';
const group = 'root:x:0:\napp:x:1001:\naudio:x:29:app,root\nvideo:x:44:app\nbad:x:\n';

describe('resolveUser', () => {
  it.each([
    ['', { uid: 0, gid: 0, additionalGids: [0, 29] }],
    ['root', { uid: 0, gid: 0, additionalGids: [0, 29] }],
    ['app', { uid: 1000, gid: 1001, additionalGids: [1001, 29, 44] }],
    ['1000', { uid: 1000, gid: 1001, additionalGids: [1001, 29, 44] }],
    ['app:video', { uid: 1000, gid: 44, additionalGids: [44] }],
    ['app:5', { uid: 1000, gid: 5, additionalGids: [5] }],
    ['4242', { uid: 4242, gid: 0, additionalGids: [0] }],
    ['4242:4243', { uid: 4242, gid: 4243, additionalGids: [4243] }],
    [':video', { uid: 0, gid: 44, additionalGids: [44] }],
  ])('resolves %j', (spec, expected) => {
    expect(resolveUser(spec, [], passwd, group)).toEqual(expected);
  });

  it('adds the groups that were asked for', () => {
    expect(resolveUser('app', ['29', 'video', '777'], passwd, group).additionalGids).toEqual([1001, 29, 44, 777]);
  });

  it('says what dockerd says about the unknown', () => {
    expect(() => resolveUser('nobody', [], passwd, group)).toThrow(
      'unable to find user nobody: no matching entries in passwd file',
    );
    expect(() => resolveUser('x', [], undefined, undefined)).toThrow(
      'unable to find user x: no matching entries in passwd file',
    );
    expect(() => resolveUser('app:nogroup', [], passwd, group)).toThrow(
      'unable to find group nogroup: no matching entries in group file',
    );
    expect(() => resolveUser('0', ['nogroup'], passwd, group)).toThrow(
      'unable to find group nogroup: no matching entries in group file',
    );
    expect(() => resolveUser('2147483648', [], passwd, group)).toThrow('uids and gids must be in range 0-2147483647');
    expect(() => resolveUser('-1', [], passwd, group)).toThrow('uids and gids must be in range 0-2147483647');
  });

  it('needs no files for numbers', () => {
    expect(resolveUser('12:13', [], undefined, undefined)).toEqual({ uid: 12, gid: 13, additionalGids: [13] });
    expect(resolveUser('', [], undefined, undefined)).toEqual({ uid: 0, gid: 0, additionalGids: [0] });
  });
});
