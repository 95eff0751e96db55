import { describe, expect, it } from 'vitest';
import { type Accounts, remappedRoot } from './remapped-root.js';

class FakeAccounts implements Accounts {
  readonly done: string[] = [];
  readonly passwd = ['root:x:0:0:::', 'web:x:1000:1001:::', 'alone:x:2000:2000:::'];
  readonly group = ['root:x:0:', 'web:x:1001:', 'staff:x:1000:', 'odd:x:50:'];
  readonly files: Record<string, string> = {
    '/etc/subuid': 'web:100000:65536\nalone:300000:10\n',
    '/etc/subgid': 'web:200000:65536\n1000:400000:5\n',
  };
  failure: string | undefined;

  find(database: 'passwd' | 'group', key: string): string | undefined {
    return this[database].find((line) => [line.split(':')[0], line.split(':')[2]].includes(key));
  }

  subordinateIds(path: string): string {
    return this.files[path] ?? '';
  }

  administer(program: string, args: readonly string[]): void {
    if (this.failure !== undefined) throw new Error(this.failure);
    this.done.push([program, ...args].join(' '));
    const name = args.at(-1) ?? '';
    if (program === 'useradd') {
      this.passwd.push(`${name}:x:998:998:::`);
      this.group.push(`${name}:x:998:`);
      return;
    }
    const [first, last] = (args[1] ?? '').split('-').map(Number) as [number, number];
    const path = args[0] === '--add-subuids' ? '/etc/subuid' : '/etc/subgid';
    this.files[path] = `${this.files[path] ?? ''}${name}:${first}:${last - first + 1}\n`;
  }
}

const firsts = (specification: string, accounts = new FakeAccounts()) => {
  const mappings = remappedRoot(specification, accounts);
  return mappings === undefined ? undefined : [mappings.uids[0]?.hostId, mappings.gids[0]?.hostId];
};

describe('remappedRoot', () => {
  it.each([
    ['web', [100000, 200000]],
    ['web:web', [100000, 200000]],
    ['web:odd', [100000, 200000]], // the ranges of subgid(5) are the user's
    ['web:1000', [100000, 400000]],
    ['1000', [100000, 400000]],
    ['1000:1001', [100000, 200000]],
    ['', undefined],
    ['root', undefined],
    ['0:0', undefined],
  ])('%j', (specification, expected) => {
    expect(firsts(specification)).toEqual(expected);
  });

  it.each([
    ['a:b:c', 'Invalid user/group specification in --userns-remap: "a:b:c"'],
    ['web:', 'Invalid user/group specification in --userns-remap: "web:"'],
    ['nobody', 'Error during uid lookup for "nobody": no matching entries in passwd file'],
    ['77', 'Uid 77 has no entry in /etc/passwd'],
    ['alone', 'Error during gid lookup for "alone": no matching entries in group file'],
    ['2000', 'Gid 2000 has no entry in /etc/group'],
    ['web:nogroup', 'Error during gid lookup for "nogroup"'],
    ['web:99', 'Gid 99 has no entry in /etc/group'],
    ['alone:odd', 'no subgid ranges found for user "odd"'],
  ])('refuses %j: %s', (specification, message) => {
    expect(() => firsts(specification)).toThrow(message);
  });

  it('makes the default user and its ranges when they are missing, once', () => {
    const accounts = new FakeAccounts();
    expect(firsts('default', accounts)).toEqual([300010, 400005]);
    expect(accounts.done).toEqual([
      'useradd --system --user-group --no-create-home --shell /bin/false dockremap',
      'usermod --add-subuids 300010-365545 dockremap',
      'usermod --add-subgids 400005-465540 dockremap',
    ]);
    expect(firsts('default', accounts)).toEqual([300010, 400005]);
    expect(accounts.done).toHaveLength(3);
  });

  it('says how to go on when the default user cannot be made', () => {
    const accounts = new FakeAccounts();
    accounts.failure = 'useradd: cannot lock /etc/passwd; try again later.';
    expect(() => firsts('default', accounts)).toThrow(
      'Error during "dockremap" user creation: useradd: cannot lock /etc/passwd; try again later.; make the user and its lines',
    );
  });
});
