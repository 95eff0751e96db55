import { describe, expect, it } from 'vitest';
import { proxyChoice } from './proxy-rules.js';

const rules = {
  httpProxy: 'plain.proxy:3128',
  httpsProxy: 'http://user:pass@secure.proxy:3129',
  noProxy: 'example.com, .only-sub.org,10.0.0.0/8,192.0.2.7,with-port.net:5000,*.star.io,[2001:db8::1]:443',
};

describe('proxyChoice', () => {
  it.each<[string, string | undefined]>([
    ['http://registry.test/v2/', 'plain.proxy'],
    ['https://registry.test/v2/', 'secure.proxy'],
    ['https://localhost:5000/', undefined],
    ['https://127.1.2.3:5000/', undefined],
    ['https://[::1]:5000/', undefined],
    ['https://example.com/', undefined],
    ['https://a.b.Example.com:8443/', undefined],
    ['https://notexample.com/', 'secure.proxy'],
    ['https://only-sub.org/', 'secure.proxy'],
    ['https://a.only-sub.org/', undefined],
    ['https://a.star.io/', undefined],
    ['https://10.200.1.1/', undefined],
    ['https://11.200.1.1/', 'secure.proxy'],
    ['https://192.0.2.7:1234/', undefined],
    ['http://with-port.net:5000/', undefined],
    ['http://with-port.net/', 'plain.proxy'],
    ['https://[2001:db8::1]/', undefined],
    ['https://[2001:db8::1]:8443/', 'secure.proxy'],
  ])('%s', (url, proxy) => {
    expect(proxyChoice(rules)(new URL(url))?.hostname).toBe(proxy);
  });

  it('knows "all" and "none"', () => {
    const url = new URL('https://registry.test/');
    expect(proxyChoice({ ...rules, noProxy: '*' })(url)).toBeUndefined();
    expect(proxyChoice({ ...rules, httpsProxy: '' })(url)).toBeUndefined();
    expect(proxyChoice(undefined)(url)).toBeUndefined();
    expect(proxyChoice({ ...rules, noProxy: '10.0.0.0/,10.0.0.0/33,x/8' })(new URL('https://10.1.2.3/'))).toBeDefined();
  });

  it('refuses what is no proxy without repeating it', () => {
    expect(() => proxyChoice({ ...rules, httpProxy: 'socks5://user:secret@x' })).toThrow(
      'proxies.http-proxy: expected an http(s) URL',
    );
  });
});
