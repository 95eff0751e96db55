import { describe, expect, it } from 'vitest';
import { extraHost } from './hosts-entries.js';
import { externalResolvConf, internalResolvConf, parseResolvConf } from './resolv-conf.js';

const nothing = { servers: [], search: [], options: [] };
const host = parseResolvConf(
  '# comment\nnameserver 127.0.0.1\nnameserver 192.0.2.53 # first\nsearch a.test b.test\noptions ndots:2 timeout:1\n',
);

describe('resolv.conf', () => {
  it('reads the host file', () => {
    expect(host).toEqual({
      nameservers: ['127.0.0.1', '192.0.2.53'],
      search: ['a.test', 'b.test'],
      options: ['ndots:2', 'timeout:1'],
    });
  });

  it('leaves loopback name servers out', () => {
    expect(externalResolvConf(host, nothing)).toBe(
      'nameserver 192.0.2.53\nsearch a.test b.test\noptions ndots:2 timeout:1\n',
    );
    const lonely = parseResolvConf('nameserver 127.0.0.53\n');
    expect(externalResolvConf(lonely, nothing)).toBe('nameserver 8.8.8.8\nnameserver 8.8.4.4\n');
  });

  it('prefers what the container asks for', () => {
    const wishes = { servers: ['127.0.0.9'], search: ['.'], options: ['use-vc'] };
    expect(externalResolvConf(host, wishes)).toBe('nameserver 127.0.0.9\noptions use-vc\n');
    expect(internalResolvConf('127.0.0.11', host, wishes)).toBe('nameserver 127.0.0.11\noptions use-vc ndots:0\n');
  });

  it('asks for names without dots first, unless told otherwise', () => {
    expect(internalResolvConf('127.0.0.11', host, nothing)).toContain('options timeout:1 ndots:0');
    expect(internalResolvConf('127.0.0.11', host, { ...nothing, options: ['ndots:3'] })).toContain('options ndots:3\n');
  });
});

describe('extra hosts', () => {
  it('read names with addresses of both families', () => {
    expect(extraHost('db:10.0.0.1', [])).toEqual([{ address: '10.0.0.1', names: ['db'] }]);
    expect(extraHost('db:fd00::1', [])).toEqual([{ address: 'fd00::1', names: ['db'] }]);
    expect(extraHost('db:[fd00::1]', [])).toEqual([{ address: 'fd00::1', names: ['db'] }]);
    expect(extraHost('gw:host-gateway', ['172.17.0.1', 'fd00::1'])).toHaveLength(2);
  });

  it.each(['db', ':10.0.0.1', 'db:', 'db:nonsense', 'gw:host-gateway'])('refuse %s', (entry) => {
    expect(() => extraHost(entry, [])).toThrow();
  });
});
