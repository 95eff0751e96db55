import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeTempDir } from '@flotilla/testkit';
import type { TempDir } from '@flotilla/testkit';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Endpoints } from './endpoints.js';
import { readHostsFile } from './hosts-file.js';

let root: TempDir;
beforeEach(async () => {
  root = await makeTempDir('hosts-file');
});
afterEach(() => root[Symbol.asyncDispose]());

function write(host: string, text: string): string {
  mkdirSync(join(root.path, host), { recursive: true });
  writeFileSync(join(root.path, host, 'hosts.toml'), text);
  return join(root.path, host);
}
const endpoints = () => new Endpoints({ certsDir: root.path, mirrors: ['https://m.test/hub'], insecureRegistries: [] });

describe('hosts.toml', () => {
  it("is read in containerd's format", async () => {
    const folder = write(
      'registry.test:5000',
      `server = "https://registry.test:5000"
       ca = "own.pem"
       [host."https://mirror.test/proxied"]
         capabilities = ["pull", "resolve"]
         ca = ["/etc/ca.pem", "ca2.pem"]
         client = [["client.cert", "client.key"]]
         skip_verify = true
       [host."http://plain.test:8080/deep/v2"]
         capabilities = ["pull"]
         override_path = true
         client = "both.pem"`,
    );
    const file = await readHostsFile(root.path, 'registry.test:5000');
    expect(file?.mirrors).toEqual([
      {
        origin: 'https://mirror.test',
        apiPath: '/proxied/v2',
        capabilities: new Set(['pull', 'resolve']),
        verifyTls: false,
        certificates: {
          authorities: ['/etc/ca.pem', join(folder, 'ca2.pem')],
          clientPair: [join(folder, 'client.cert'), join(folder, 'client.key')],
        },
      },
      {
        origin: 'http://plain.test:8080',
        apiPath: '/deep/v2',
        capabilities: new Set(['pull']),
        verifyTls: true,
        certificates: { authorities: [], clientPair: [join(folder, 'both.pem'), ''] },
      },
    ]);
    expect(file?.server).toMatchObject({ origin: 'https://registry.test:5000', apiPath: '/v2' });
    expect(file?.server?.certificates.authorities).toEqual([join(folder, 'own.pem')]);
  });

  it('orders who is asked, by what for', async () => {
    write(
      'registry.test',
      '[host."https://a.test"]\ncapabilities=["pull"]\n[host."https://b.test"]\ncapabilities=["pull","resolve","push"]',
    );
    const asked = async (what: 'pull' | 'resolve' | 'push') =>
      (await endpoints().candidates('registry.test', what)).map(({ origin }) => origin);
    expect(await asked('pull')).toEqual(['https://a.test', 'https://b.test', 'https://registry.test']);
    expect(await asked('resolve')).toEqual(['https://b.test', 'https://registry.test']);
    const [mirror, own] = await endpoints().candidates('registry.test', 'push');
    expect(mirror).toMatchObject({ isMirror: true, namespace: 'registry.test' });
    expect(own).toMatchObject({ isMirror: false });
    expect(own?.namespace).toBeUndefined();
  });

  it('stands above registry-mirrors, and _default for whoever has none', async () => {
    const hub = async () => (await endpoints().candidates('docker.io')).map(({ origin, apiPath }) => origin + apiPath);
    expect(await hub()).toEqual(['https://m.test/hub/v2', 'https://registry-1.docker.io/v2']);
    write('_default', '[host."https://all.test"]');
    expect(await hub()).toEqual(['https://all.test/v2', 'https://registry-1.docker.io/v2']);
    write('docker.io', 'server = "https://only.test"');
    expect(await hub()).toEqual(['https://only.test/v2']);
  });

  it('may leave nobody to push to', async () => {
    write('registry.test', 'server = "https://registry.test"\ncapabilities = ["pull", "resolve"]');
    await expect(endpoints().candidates('registry.test', 'push')).rejects.toMatchObject({
      kind: 'notFound',
      message: 'no push hosts for registry.test: see its hosts.toml',
    });
  });

  it.each([
    ['server = ', /hosts\.toml: Invalid TOML document/],
    ['server = 3', /hosts\.toml: server: expected a URL/],
    ['host = 3', /host: expected tables/],
    ['[host."ftp://x"]', /is not a URL of a registry/],
    ['[host."https://x"]\ncapabilities = ["fly"]', /host."https:\/\/x".capabilities: expected pull, resolve or push/],
    ['[host."https://x"]\nskip_verify = "yes"', /skip_verify: expected true or false/],
    ['[host."https://x"]\nca = [1]', /ca: expected a file name/],
    ['[host."https://x"]\nclient = [["a","b"],["c","d"]]', /client: expected/],
    ['[host."https://x".header]\nx = "y"', /host."https:\/\/x".header is not implemented/],
    ['skip_verify = true', /hosts\.toml: skip_verify needs a server/],
    ['x = 1\nserver = "https://a"', /hosts\.toml: x is not implemented/],
  ])('is refused when malformed: %s', async (text, message) => {
    write('registry.test', text);
    await expect(readHostsFile(root.path, 'registry.test')).rejects.toMatchObject({
      kind: 'invalidArgument',
      message: expect.stringMatching(message) as string,
    });
  });
});
