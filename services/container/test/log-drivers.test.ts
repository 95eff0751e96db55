import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { container } from '@flotilla/proto';
import { receiveDatagrams, receiveStreams, waitFor as until } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canRun, createRequest, deadline, makeContainerService, readLog, waitFor } from './container-fixture.js';

describe.skipIf(!canRun)('log drivers (needs root, shim, runc, busybox)', () => {
  let service: Awaited<ReturnType<typeof makeContainerService>>;
  beforeAll(async () => {
    service = await makeContainerService();
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
  });

  async function create(cmd: string[], type: string, config: Record<string, string> = {}): Promise<string> {
    const hostConfig = { logConfig: { type, config } };
    const request = createRequest(cmd, {
      hostConfig: { networkMode: 'none', ...hostConfig },
      config: { labels: { role: 'front' }, env: ['MODE=test'] },
    });
    return (await service.client.createContainer(request, deadline)).id;
  }

  async function run(cmd: string[], type: string, config: Record<string, string> = {}): Promise<string> {
    const id = await create(cmd, type, config);
    await service.client.startContainer({ name: id, checkpoint: '', checkpointDir: '' }, deadline);
    return id;
  }

  const inspect = async (name: string) =>
    (await service.client.getContainer({ name, size: false }, deadline)).container;

  it('refuses options before anything is made', async () => {
    await expect(create(['true'], 'splunk')).rejects.toThrow("logger: no log driver named 'splunk' is registered");
    await expect(create(['true'], 'json-file', { 'max-size': 'x' })).rejects.toThrow("invalid size: 'x'");
    await expect(create(['true'], 'gelf')).rejects.toThrow('gelf-address is a required parameter');
    expect((await service.client.listContainers({}, deadline)).containers).toEqual([]);
  });

  it('local keeps files of its own, and shows attributes', async () => {
    const id = await run(['sh', '-c', 'echo out; echo err >&2'], 'local', { labels: 'role', env: 'MODE', tag: 'T' });
    expect(await waitFor(service.client, id)).toBe(0);
    expect((await readLog(service.client, id)).split('\n').sort()).toEqual(['', 'err', 'out']);
    expect((await inspect(id))?.logPath).toBe('');
    const request = { name: id, stdout: true, stderr: false, details: true };
    const chunks: Buffer[] = [];
    for await (const { output } of service.client.streamLogs(container.StreamLogsRequest.fromPartial(request))) {
      chunks.push(output);
    }
    expect(Buffer.concat(chunks).toString('utf8', 8)).toBe('MODE=test,role=front,tag=T out\n');
  });

  it.each(['syslog', 'fluentd'] as const)('%s sends lines, and logs are readable here', async (type) => {
    await using receiver = await receiveStreams();
    const address = `tcp://127.0.0.1:${receiver.port}`;
    const id = await run(['sh', '-c', 'echo hello; echo trouble >&2'], type, { [`${type}-address`]: address });
    await until(() => receiver.text().includes('hello') && receiver.text().includes('trouble'), { what: 'the lines' });
    expect(await waitFor(service.client, id)).toBe(0);
    expect((await readLog(service.client, id)).split('\n').sort()).toEqual(['', 'hello', 'trouble']);
  });

  it('gelf sends compressed datagrams', async () => {
    await using receiver = await receiveDatagrams();
    await run(['echo', 'hello'], 'gelf', { 'gelf-address': `udp://127.0.0.1:${receiver.port}`, labels: 'role' });
    await until(() => receiver.pieces.length > 0, { what: 'the datagram' });
    const message: unknown = JSON.parse(gunzipSync(receiver.pieces[0] ?? Buffer.alloc(0)).toString());
    expect(message).toMatchObject({ short_message: 'hello', _role: 'front', _command: 'echo hello', level: 6 });
  });

  it('a receiver that is not there holds nothing up, and gets everything later', async () => {
    const path = join(service.root, 'fluentd.sock');
    const options = { 'fluentd-address': `unix://${path}`, 'fluentd-retry-wait': '10ms' };
    const id = await run(['sh', '-c', 'seq 1 20000 | sed "s/.*/line-&./"'], 'fluentd', options);
    expect(await waitFor(service.client, id)).toBe(0);
    expect((await readLog(service.client, id)).split('\n')).toHaveLength(20_001);
    // What was not sent before the process ended is sent when the container runs again.
    await service.restart();
    await using receiver = await receiveStreams({ listen: { path } });
    await service.client.startContainer({ name: id, checkpoint: '', checkpointDir: '' }, deadline);
    await until(() => receiver.text().split('line-20000.').length === 3, { what: 'both runs', timeoutMs: 30_000 });
    const seen = new Set([...receiver.text().matchAll(/line-(\d+)\./g)].map(([, number]) => number));
    expect(seen.size).toBe(20_000);
  });

  it('without a cache there is nothing to read', async () => {
    await using receiver = await receiveStreams();
    const options = { 'syslog-address': `tcp://127.0.0.1:${receiver.port}`, 'cache-disabled': 'true' };
    const id = await run(['echo', 'away'], 'syslog', options);
    await until(() => receiver.text().includes('away'), { what: 'the line' });
    await expect(readLog(service.client, id)).rejects.toThrow('configured logging driver does not support reading');
  });

  it.skipIf(existsSync('/run/systemd/journal/socket'))('journald says that there is none', async () => {
    const id = await create(['true'], 'journald');
    await expect(
      service.client.startContainer({ name: id, checkpoint: '', checkpointDir: '' }, deadline),
    ).rejects.toThrow('failed to initialize logging driver: journald is not enabled on this host');
  });

  it('keeps attributes in json-file entries', async () => {
    const id = await run(['echo', 'x'], 'json-file', { tag: '{{.Name}}', 'labels-regex': '^ro' });
    await waitFor(service.client, id);
    const shown = await inspect(id);
    const entry: unknown = JSON.parse(readFileSync(shown?.logPath ?? '', 'utf8'));
    expect(entry).toMatchObject({ log: 'x\n', attrs: { role: 'front', tag: shown?.name } });
  });
});
