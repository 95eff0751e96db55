import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  parseDaemonFlags,
  parseServiceConfig,
  readDaemonSettings,
  readServiceConfig,
  serviceFiles,
  serviceNames,
} from './index.js';
import type { DaemonSettings } from './index.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'flotilla-config-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function settings(file: unknown, ...argv: string[]): DaemonSettings {
  const path = join(dir, 'daemon.json');
  writeFileSync(path, typeof file === 'string' ? file : JSON.stringify(file));
  return readDaemonSettings(parseDaemonFlags(['--config-file', path, ...argv]));
}
const facts = { version: '0.1.0', engineId: 'id', nats: null };

describe('daemon settings', () => {
  it('say how the registry cache is served and how large it is', () => {
    const registryOf = (given: object) => serviceFiles(settings(given), facts)['registry-proxy'].registry;
    expect(registryOf({})).not.toHaveProperty('serve');
    expect(registryOf({ 'registry-cache-size': '5g', 'registry-listen': { address: '127.0.0.1:5005' } })).toMatchObject(
      {
        cacheBytes: 5 * 1024 ** 3,
        serve: { host: '127.0.0.1', port: 5005 },
      },
    );
    expect(registryOf({ 'registry-cache-size': 0 }).cacheBytes).toBe(0);
    const tls = { cert: '/c', key: '/k', ca: '/ca' };
    expect(registryOf({ 'registry-listen': { address: '[2001:db8::1]:443', tls } }).serve).toEqual({
      host: '2001:db8::1',
      port: 443,
      tls: { certFile: '/c', keyFile: '/k', caFile: '/ca' },
    });
    expect(
      registryOf({
        'registry-listen': { address: '10.0.0.1:443', tls: { cert: '/c', key: '/k' }, 'token-file': '/t' },
      }).serve,
    ).toMatchObject({ tokenFile: '/t' });
  });

  it.each([
    [{ 'registry-cache-size': -1 }, /registry-cache-size/],
    [{ 'registry-cache-size': 'much' }, /registry-cache-size/],
    [{ 'registry-listen': {} }, /registry-listen.address/],
    [{ 'registry-listen': { address: 'localhost:5000' } }, /registry-listen.address: expected an address and a port/],
    [{ 'registry-listen': { address: '127.0.0.1:0' } }, /registry-listen.address: expected an address and a port/],
    [{ 'registry-listen': { address: '127.0.0.1:5000', user: 'x' } }, /unknown key registry-listen.user/],
    [{ 'registry-listen': { address: '0.0.0.0:5000' } }, /other than loopback needs tls with a ca/],
    [{ 'registry-listen': { address: '10.0.0.1:5000', 'token-file': '/t' } }, /other than loopback needs tls/],
    [{ 'registry-listen': { address: '[::]:5000', tls: { cert: '/c', key: '/k' } } }, /other than loopback needs tls/],
  ])('refuse %j', (given, message) => {
    expect(() => settings(given)).toThrow(message);
  });

  it('have defaults', () => {
    expect(settings({})).toMatchObject({
      dataRoot: '/var/lib/flotilla',
      execRoot: '/run/flotilla',
      hosts: ['unix:///run/flotilla/docker.sock'],
      log: { level: 'info', format: 'text' },
    });
  });

  it('come from file and flags', () => {
    const made = settings(
      {
        'insecure-registries': ['reg:5000'],
        bip: '10.9.0.1/24',
        runtimes: { crun: { path: '/usr/bin/crun' } },
        services: { image: { address: 'tcp:h:1' } },
      },
      '--exec-root=/run/x',
      '-H',
      'unix:///tmp/a.sock',
      '--host',
      'unix:///tmp/b.sock',
      '-D',
      '--dns',
      '1.1.1.1',
      '--mtu',
      '1400',
      '--default-address-pool',
      'base=10.10.0.0/16,size=24',
      '--default-ulimit',
      'nofile=10:20',
      '--add-runtime',
      'kata=/k',
      '--log-opt',
      'max-size=1m',
      '--default-shm-size',
      '1.5m',
      '--default-ipc-mode',
      'shareable',
    );
    expect(made).toMatchObject({ hosts: ['unix:///tmp/a.sock', 'unix:///tmp/b.sock'], log: { level: 'debug' } });
    expect(made.remoteServices.get('image')).toBe('tcp:h:1');
    const files = serviceFiles(made, facts);
    expect(files.network.network).toMatchObject({
      bip: '10.9.0.1/24',
      dns: ['1.1.1.1'],
      mtu: 1400,
      defaultAddressPools: [{ base: '10.10.0.0/16', size: 24 }],
    });
    expect(files.container.container).toMatchObject({
      defaultUlimits: [{ name: 'nofile', soft: 10, hard: 20 }],
      logOpts: { 'max-size': '1m' },
      defaultShmSizeBytes: 1572864,
      defaultIpcMode: 'shareable',
    });
    expect(Object.keys(files.container.container.runtimes)).toEqual(['runc', 'crun', 'kata']);
    expect(files['registry-proxy'].registry.insecureRegistries).toEqual(['reg:5000']);
    expect(files.volume.services).toMatchObject({ image: 'tcp:h:1', volume: 'unix:/run/x/volume.sock' });
  });

  it.each([
    [{ 'no-such-key': 1 }, [], 'unknown key no-such-key'],
    [{ debug: 'yes' }, [], 'debug: expected boolean'],
    [{ 'log-level': 'loud' }, [], 'log-level: expected debug or info or warn or error or fatal'],
    [{ mtu: 1500 }, ['--mtu', '1400'], 'mtu (from flag --mtu: 1400, from file'],
    [{ hosts: ['unix:///a'] }, ['-H', 'unix:///b'], 'hosts (from flag --host: ["unix:///b"], from file'],
    [{ hosts: ['tcp://0.0.0.0:2375'] }, [], 'hosts.0: only unix:///path is implemented yet'],
    [{ 'userns-remap': 1 }, [], 'userns-remap: expected string'],
    [{ 'live-restore': 'no' }, [], 'live-restore: expected boolean'],
    [{ 'storage-driver': 'btrfs' }, [], 'storage-driver: expected one of overlay2, overlayfs, vfs'],
    [{ bip: '300.1.1.1/16' }, [], 'bip: expected an address'],
    [{ dns: ['nope'] }, [], 'dns.0: expected an IP address'],
    [{ bip6: '10.0.0.1/24' }, [], 'bip6: expected an IPv6 address with a prefix length'],
    [{ 'fixed-cidr-v6': 'fd00::1' }, [], 'fixed-cidr-v6: expected an IPv6 address with a prefix length'],
    [{ 'default-gateway': 'fd00::1' }, [], 'default-gateway: expected an IPv4 address'],
    [{ 'default-gateway-v6': '10.0.0.1' }, [], 'default-gateway-v6: expected an IPv6 address'],
    [{ 'default-address-pools': [{ base: 'x', size: 24 }] }, [], 'default-address-pools.0.base: expected an address'],
    [{ 'default-address-pools': [{ base: '10.0.0.0/16', size: 8 }] }, [], 'default-address-pools.0: expected a size'],
    [{ 'bridge-accept-fwmark': '0x1/0x1/0x1' }, [], 'bridge-accept-fwmark: expected a mark'],
    [{ 'bridge-accept-fwmark': '4294967296' }, [], 'bridge-accept-fwmark: expected a mark'],
    [{ 'default-network-opts': { bridge: { a: 1 } } }, [], 'default-network-opts.bridge.a: expected string'],
    [{ bip: '10.0.0.1/24', 'fixed-cidr': '10.1.0.0/25' }, [], "fixed-cidr: 10.1.0.0/25 is not part of the bridge's"],
    [{ bip: '10.0.0.1/24', 'fixed-cidr': '10.0.0.0/16' }, [], "fixed-cidr: 10.0.0.0/16 is not part of the bridge's"],
    [
      { bip: '10.0.0.1/24' },
      ['--default-gateway', '10.1.0.1'],
      "default-gateway: 10.1.0.1 is not part of the bridge's",
    ],
    [{ bip6: 'fd00::1/64', 'fixed-cidr-v6': 'fd01::/80' }, [], "fixed-cidr-v6: fd01::/80 is not part of the bridge's"],
    [{}, ['--default-network-opt', 'bridge'], 'invalid argument "bridge" for --default-network-opt'],
    [{ 'data-root': 'relative' }, [], 'data-root: expected an absolute path'],
    [{ labels: ['a=1', 'a=2'] }, [], 'conflict labels for a=2 and a=1'],
    [{}, ['--no-such-flag'], "Unknown option '--no-such-flag'"],
    [{}, ['--mtu', 'x'], 'invalid argument "x" for --mtu'],
    [{}, ['stray'], 'Unexpected argument'],
    ['{', [], 'not valid JSON'],
    ['[]', [], 'expected a JSON object'],
  ])('%j %j is refused: %s', (file, argv, message) => {
    expect(() => settings(file, ...argv)).toThrow(message);
  });

  it('of networks reach the network service', () => {
    const blockOf = (file: object, ...argv: string[]) => serviceFiles(settings(file, ...argv), facts).network.network;
    expect(
      blockOf(
        { 'host-gateway-ip': '10.1.1.1', 'default-address-pools': [{ base: 'fd63::/48', size: 64 }], ip6tables: false },
        ...['--bip6', 'fd62::1/64', '--default-gateway', '10.0.0.9', '--default-gateway-v6', 'fd62::9'],
        ...[
          '--default-network-opt',
          'bridge=com.docker.network.driver.mtu=1400',
          '--default-network-opt',
          'bridge=a=b=c',
        ],
        ...['--bridge-accept-fwmark', '0x7/0xf', '--allow-direct-routing', '--ip-forward-no-drop', '--icc=false'],
      ),
    ).toMatchObject({
      hostGatewayIps: ['10.1.1.1'],
      defaultAddressPools: [{ base: 'fd63::/48', size: 64 }],
      iptables: true,
      ip6tables: false,
      bip6: 'fd62::1/64',
      defaultGateway: '10.0.0.9',
      defaultGatewayV6: 'fd62::9',
      defaultNetworkOptions: { bridge: { 'com.docker.network.driver.mtu': '1400', a: 'b=c' } },
      acceptedMark: { value: 7, mask: 15 },
      allowDirectRouting: true,
      icc: false,
    });
    const fitting = { bip: '10.0.0.1/24', 'fixed-cidr': '10.0.0.128/25', 'default-gateway': '10.0.0.9' };
    expect(blockOf(fitting)).toMatchObject({ fixedCidr: '10.0.0.128/25' });
    expect(blockOf({ 'bridge-accept-fwmark': '5' }).acceptedMark).toEqual({ value: 5, mask: 0xffffffff });
  });

  it('refuse a default runtime or an ulimit that cannot be', () => {
    expect(() => serviceFiles(settings({ 'default-runtime': 'x' }), facts)).toThrow(
      "default runtime 'x' does not exist",
    );
    expect(() => serviceFiles(settings({}, '--default-ulimit', 'nofile=3:2'), facts)).toThrow(
      'soft limit must be less',
    );
  });

  it('say which keys do nothing', () => {
    expect(settings({ 'api-cors-header': '*', 'storage-driver': 'overlay2' }).notices).toEqual([
      expect.stringContaining('api-cors-header is no longer used'),
    ]);
  });

  it('hand the storage driver on, by one name', () => {
    const driver = (file: object, ...argv: string[]) =>
      serviceFiles(settings(file, ...argv), facts).image.image.storageDriver;
    expect(driver({})).toBeUndefined();
    expect(driver({ 'storage-driver': 'vfs' })).toBe('vfs');
    expect(driver({}, '--storage-driver', 'overlayfs')).toBe('overlay2');
  });

  it('need a named file, not the default one', () => {
    expect(() => readDaemonSettings(parseDaemonFlags(['--config-file', '/no/such']))).toThrow(
      'cannot read configuration file /no/such',
    );
  });
});

describe('service files', () => {
  it('made by the launcher are what the services accept', () => {
    const files = serviceFiles(settings({}), facts);
    for (const name of serviceNames)
      expect(parseServiceConfig(name, JSON.stringify(files[name]), name)).toEqual(files[name]);
  });

  it('are refused with the key', () => {
    const file = serviceFiles(settings({}), facts).volume;
    const path = join(dir, 'volume.json');
    writeFileSync(path, JSON.stringify({ ...file, volume: { extra: 1 } }));
    expect(() => readServiceConfig('volume', path)).toThrow(`${path}: unknown key volume.extra`);
    writeFileSync(path, JSON.stringify({ ...file, engineId: undefined }));
    expect(() => readServiceConfig('volume', path)).toThrow('engineId: expected string');
    expect(() => readServiceConfig('image', join(dir, 'none'))).toThrow('cannot read the configuration');
    expect(() => parseServiceConfig('image', JSON.stringify({ ...file, image: {} }), 'x')).toThrow(
      'x: image.maxConcurrentDownloads: expected number',
    );
  });
});
