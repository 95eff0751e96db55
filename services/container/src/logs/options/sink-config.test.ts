import { describe, expect, it } from 'vitest';
import type { LoggedContainer } from './log-attributes.js';
import { checkLogOptions, sinkConfig } from './sink-config.js';

const container: LoggedContainer = {
  id: 'abcdef0123456789'.repeat(4),
  name: 'web',
  imageId: `sha256:${'9'.repeat(64)}`,
  imageName: 'busybox:1',
  command: ['sh', '-c', 'true'],
  createdAt: '2026-01-02T03:04:05.000000001Z',
  labels: { role: 'front', 'org.x.a': '1', 'org.x.b': '2' },
  env: ['A=1', 'B=x=y', 'PATH=/bin'],
};

describe('options that are refused', () => {
  it.each<[string, Record<string, string>, string]>([
    ['splunk', {}, "logger: no log driver named 'splunk' is registered"],
    ['json-file', { 'max-sizes': '1m' }, "unknown log opt 'max-sizes' for json-file log driver"],
    ['local', { nope: '' }, "unknown log opt 'nope' for log driver local"],
    ['syslog', { nope: '' }, "unknown log opt 'nope' for syslog log driver"],
    ['gelf', { nope: '' }, 'unknown log opt "nope" for gelf log driver'],
    ['fluentd', { nope: '' }, "unknown log opt 'nope' for fluentd log driver"],
    ['journald', { 'max-size': '1m' }, "unknown log opt 'max-size' for journald log driver"],
    ['json-file', { 'max-size': 'big' }, "invalid size: 'big'"],
    ['json-file', { 'max-size': '0' }, 'max-size must be a positive number'],
    ['json-file', { 'max-file': '0' }, 'max-file cannot be less than 1'],
    ['json-file', { 'max-file': 'x' }, 'strconv.Atoi: parsing "x": invalid syntax'],
    ['json-file', { compress: 'perhaps' }, 'strconv.ParseBool: parsing "perhaps": invalid syntax'],
    [
      'json-file',
      { 'max-size': '1m', compress: 'true' },
      'compress cannot be true when max-file is less than 2 or max-size is not set',
    ],
    ['json-file', { 'labels-regex': '(' }, 'error parsing regexp'],
    ['json-file', { 'env-regex': '(?=a)' }, 'error parsing regexp'],
    ['json-file', { tag: '{{.Nope}}' }, "can't evaluate field Nope"],
    ['json-file', { tag: '{{if .ID}}' }, 'unsupported action'],
    ['json-file', { mode: 'sometimes' }, 'logger: logging mode not supported: sometimes'],
    [
      'json-file',
      { 'max-buffer-size': '1m' },
      "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
    ],
    [
      'json-file',
      { mode: 'non-blocking', 'max-buffer-size': 'x' },
      "error parsing option max-buffer-size: invalid size: 'x'",
    ],
    ['local', { 'max-size': 'x' }, "invalid value for max-size: x: invalid size: 'x'"],
    ['local', { 'max-file': '1' }, 'compression cannot be enabled when max file count is 1'],
    ['syslog', { 'syslog-address': 'here' }, 'syslog-address should be in form proto://address, got here'],
    ['syslog', { 'syslog-address': 'http://h:1' }, "unsupported scheme: 'http'"],
    ['syslog', { 'syslog-address': 'unix:///no/such/log' }, 'stat /no/such/log: no such file or directory'],
    ['syslog', { 'syslog-facility': 'kernel' }, 'invalid syslog facility'],
    ['syslog', { 'syslog-facility': '24' }, 'invalid syslog facility'],
    ['syslog', { 'syslog-format': 'rfc1' }, 'Invalid syslog format'],
    [
      'syslog',
      { 'syslog-address': 'tcp+tls://h:1', 'syslog-tls-ca-cert': '/no/such.pem' },
      'could not read the certificates',
    ],
    ['gelf', {}, 'gelf-address is a required parameter'],
    ['gelf', { 'gelf-address': 'http://h:1' }, 'gelf: endpoint needs to be TCP or UDP'],
    ['gelf', { 'gelf-address': 'udp://h' }, 'gelf: please provide gelf-address as proto://host:port'],
    ['gelf', { 'gelf-address': 'tcp://h:1', 'gelf-compression-type': 'none' }, 'compression is only supported on UDP'],
    [
      'gelf',
      { 'gelf-address': 'udp://h:1', 'gelf-compression-type': 'xz' },
      'unknown value "xz" for log opt "gelf-compression-type" for gelf log driver',
    ],
    [
      'gelf',
      { 'gelf-address': 'udp://h:1', 'gelf-tcp-max-reconnect': '1' },
      '"gelf-tcp-max-reconnect" is only valid for TCP',
    ],
    ['fluentd', { 'fluentd-address': 'udp://h:1' }, 'unsupported scheme: udp'],
    ['fluentd', { 'fluentd-address': 'unix://' }, 'path is empty'],
    ['fluentd', { 'fluentd-retry-wait': 'soon' }, 'time: invalid duration "soon"'],
    ['fluentd', { 'fluentd-async': 'x' }, 'strconv.ParseBool'],
    ['fluentd', { 'cache-disabled': 'x' }, 'invalid value for option cache-disabled: x'],
    ['fluentd', { 'cache-max-file': '-1' }, 'max-file must not be negative'],
  ])('%s %o', (driver, options, message) => {
    expect(() => checkLogOptions(driver, options)).toThrow(message);
  });
});

describe('where output goes', () => {
  it('rotates by default', () => {
    const json = sinkConfig('/d', 'json-file', {}, container);
    expect(json).toMatchObject({ path: `/d/${container.id}-json.log`, maxSizeBytes: 100e6, maxFiles: 5 });
    const local = sinkConfig('/d', 'local', {}, container);
    expect(local).toMatchObject({ path: '/d/local-logs/container.log', maxSizeBytes: 20 * 2 ** 20, maxFiles: 5 });
    expect([json.compress, local.compress]).toEqual([false, true]);
  });

  it('takes given sizes as dockerd, and -1 for no limit', () => {
    const limits = (options: Record<string, string>) => {
      const { maxSizeBytes, maxFiles, compress } = sinkConfig('/d', 'json-file', options, container);
      return [maxSizeBytes, maxFiles, compress];
    };
    expect(limits({ 'max-size': '10k' })).toEqual([10_000, 1, false]);
    expect(limits({ 'max-size': '1.5m', 'max-file': '3', compress: 'true' })).toEqual([1_500_000, 3, true]);
    expect(limits({ 'max-size': '-1' })).toEqual([undefined, 1, false]);
  });

  it('chooses attributes by name and by expression', () => {
    const attributes = (options: Record<string, string>) =>
      sinkConfig('/d', 'json-file', options, container).attributes;
    expect(attributes({})).toBeUndefined();
    expect(attributes({ labels: 'role,absent', env: 'B' })).toEqual({ role: 'front', B: 'x=y' });
    expect(attributes({ 'labels-regex': '^org\\.', 'env-regex': '^A$' })).toEqual({
      ...{ 'org.x.a': '1', 'org.x.b': '2', A: '1' },
    });
    expect(
      attributes({
        tag: '{{.ID}}/{{.Name}}/{{ .ImageName }}/{{.ImageID}}/{{.DaemonName}}/{{index .ContainerLabels "role"}}',
      }),
    ).toEqual({ tag: 'abcdef012345/web/busybox:1/sha256:99999/docker/front' });
    expect(attributes({ tag: '{{.FullID}} {{.ImageFullID}}' })).toEqual({
      tag: `${container.id} ${container.imageId}`,
    });
  });

  it('keeps what is sent in a cache, unless that is disabled', () => {
    const options = { 'syslog-address': 'tcp://[::1]:601', 'syslog-facility': 'local3', tag: 't' };
    const sink = sinkConfig('/d', 'syslog', options, container);
    expect(sink).toMatchObject({ path: '/d/container-cached.log', isReadable: true, maxSizeBytes: 20 * 2 ** 20 });
    expect(sink.remote).toEqual({
      ...{ kind: 'syslog', facility: 19, format: 'unix', tag: 'docker/t' },
      address: { proto: 'tcp', host: '::1', port: 601 },
    });
    expect(sink.maxBacklogBytes).toBeUndefined();
    const lossy = { ...options, mode: 'non-blocking', 'cache-disabled': 'true', 'cache-max-size': '1m' };
    expect(sinkConfig('/d', 'syslog', lossy, container)).toMatchObject({
      ...{ isReadable: false, maxBacklogBytes: 1 << 20 },
    });
    expect(sinkConfig('/d', 'syslog', { 'cache-max-size': '1m', 'cache-max-file': '2' }, container)).toMatchObject({
      ...{ maxSizeBytes: 1_000_000, maxFiles: 2 },
    });
  });

  it('reads the options of fluentd and gelf', () => {
    const fluentd = { 'fluentd-async': 'true', 'fluentd-buffer-limit': '2m', 'fluentd-retry-wait': '1m30s' };
    const sink = sinkConfig('/d', 'fluentd', { ...fluentd, labels: 'role', 'fluentd-max-retries': '4' }, container);
    expect(sink.maxBacklogBytes).toBe(2 << 20);
    expect(sink.remote).toMatchObject({
      ...{ address: { proto: 'tcp', host: '127.0.0.1', port: 24_224 }, retryWaitMs: 90_000, maxRetries: 4 },
      ...{ tag: 'abcdef012345', fields: { container_name: '/web', role: 'front' } },
    });
    const gelf = sinkConfig('/d', 'gelf', { 'gelf-address': 'udp://h:12201', env: 'A' }, container);
    expect(gelf.remote).toMatchObject({ compression: 'gzip', level: 1, fields: { _container_name: 'web', _A: '1' } });
  });
});
