import { request } from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { takeFootprint } from './footprint.js';
import { rawRequest, type RawAnswer } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const mebibyte = 1 << 20;

describe('many at once and too much', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
    await t.ok('run', '--rm', 'busybox', 'true');
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const send = (method: string, path: string, body?: string | object): Promise<RawAnswer> =>
    rawRequest(t.engine.socket, method, `/v1.51${path}`, body);
  const create = (name: string, more: object = {}): Promise<RawAnswer> =>
    send('POST', `/containers/create?name=${name}`, { Image: 'busybox', Cmd: ['sleep', '1000'], ...more });
  const statusesOf = (answers: readonly RawAnswer[]): number[] => answers.map(({ status }) => status).sort();
  const messageOf = ({ json }: RawAnswer): string => (json as { message: string }).message;

  it('of a thousand creates of one name one succeeds', async () => {
    const footprint = await takeFootprint(t);
    const answers = await Promise.all(Array.from({ length: 1000 }, () => create('wanted')));
    const [made, ...more] = answers.filter(({ status }) => status === 201);
    expect(more).toEqual([]);
    const { Id: id } = made?.json as { Id: string };
    for (const refused of answers.filter(({ status }) => status !== 201)) {
      expect(refused.status).toBe(409);
      expect(messageOf(refused)).toMatch(
        /^Conflict\. The container name "\/wanted" is already in use by container "?[0-9a-f]{64}"?\./,
      );
      expect(messageOf(refused)).toContain(id);
    }
    expect(await t.ok('ps', '-aq', '--no-trunc')).toBe(id);
    await t.ok('rm', 'wanted');
    await footprint.expectUnchanged();
  });

  it('of many creates of one volume and one network all agree', async () => {
    const footprint = await takeFootprint(t);
    const volumes = await Promise.all(
      Array.from({ length: 50 }, () => send('POST', '/volumes/create', { Name: 'shared' })),
    );
    expect(new Set(statusesOf(volumes))).toEqual(new Set([201]));
    const networks = await Promise.all(
      Array.from({ length: 20 }, () => send('POST', '/networks/create', { Name: 'blue' })),
    );
    expect(statusesOf(networks)).toEqual([201, ...Array.from({ length: 19 }, () => 409)]);
    await t.ok('volume', 'rm', 'shared');
    await t.ok('network', 'rm', 'blue');
    await footprint.expectUnchanged();
  });

  it('starts, kills and removals of one container at once leave it gone or whole', async () => {
    const footprint = await takeFootprint(t);
    for (let round = 0; round < 6; round += 1) {
      await create('raced', { HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '18090' }] } } });
      const answers = await Promise.all([
        send('POST', '/containers/raced/start'),
        send('POST', '/containers/raced/kill'),
        send('POST', '/containers/raced/start'),
        send('DELETE', '/containers/raced?force=1'),
        send('POST', '/containers/raced/restart?t=0'),
        send('DELETE', '/containers/raced?force=1'),
        send('POST', '/containers/raced/stop?t=0'),
      ]);
      for (const answer of answers) {
        expect([200, 204, 304, 404, 409], answer.body).toContain(answer.status);
      }
      await send('DELETE', '/containers/raced?force=1');
      expect((await send('GET', '/containers/raced/json')).status).toBe(404);
    }
    await footprint.expectUnchanged();
  });

  it('twenty containers that want one port: one has it', async () => {
    const footprint = await takeFootprint(t);
    const names = Array.from({ length: 20 }, (_, at) => `port${at}`);
    const binding = { HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '18091' }] } } };
    for (const name of names) expect((await create(name, binding)).status).toBe(201);
    const starts = await Promise.all(names.map((name) => send('POST', `/containers/${name}/start`)));
    expect(starts.filter(({ status }) => status === 204)).toHaveLength(1);
    for (const refused of starts.filter(({ status }) => status !== 204)) {
      expect(refused.status).toBe(500);
      expect(messageOf(refused)).toMatch(/port is already allocated/);
    }
    await t.ok('rm', '-f', ...names);
    await footprint.expectUnchanged();
  });

  it('a body that is too large is refused without being read to its end', async () => {
    const footprint = await takeFootprint(t);
    const { status, message, sentBytes } = await sendEndlessly('/v1.51/containers/create?name=huge', 512 * mebibyte);
    expect([400, 413]).toContain(status);
    expect(message).toMatch(/too large/i);
    expect(sentBytes).toBeLessThan(256 * mebibyte);
    expect((await send('GET', '/_ping')).body).toBe('OK');
    await footprint.expectUnchanged();
  });

  it.each<[string, string]>([
    ['nesting', `{"Image": "busybox", "Labels": ${'{"a":'.repeat(100_000)}{}${'}'.repeat(100_000)}}`],
    ['length of a hostname', JSON.stringify({ Image: 'busybox', Hostname: 'h'.repeat(300) })],
    ['size of a number', '{"Image": "busybox", "HostConfig": {"Memory": 1e400}}'],
    ['ports of one range', '{"Image": "busybox", "ExposedPorts": {"1-99999999/tcp": {}}}'],
  ])('too much of one thing: %s', async (_what, body) => {
    const answer = await send('POST', '/containers/create', body);
    expect(answer.status, answer.body.slice(0, 300)).toBe(400);
    expect(answer.body.length).toBeLessThan(2000);
    expect(await t.ok('ps', '-aq')).toBe('');
  });

  it('names and labels have no limit of length but that of a request', async () => {
    const footprint = await takeFootprint(t);
    const [name, renamed] = ['n'.repeat(4000), 'r'.repeat(4000)];
    await t.ok('network', 'create', 'wide');
    const label = { [`key.${'k'.repeat(60_000)}`]: 'v'.repeat(mebibyte) };
    const answer = await create(name, { Labels: label, HostConfig: { NetworkMode: 'wide' } });
    expect([answer.status, answer.body.slice(0, 300)]).toEqual([201, expect.stringContaining('"Id"')]);
    await t.ok('start', name);
    expect(await t.ok('ps', '--no-trunc', '--format', '{{.Names}}')).toBe(name);
    const { Config: shown } = (await send('GET', `/containers/${name}/json`)).json as { Config: { Labels: object } };
    expect(shown.Labels).toEqual(label);
    await t.ok('rename', name, renamed);
    expect(await t.ok('ps', '-q', '--filter', `name=^${renamed}$`)).not.toBe('');
    expect(await t.ok('exec', renamed, 'echo', 'inside')).toBe('inside');
    await t.ok('rm', '-f', renamed);
    await t.ok('network', 'rm', 'wide');
    const volume = 'v'.repeat(255);
    expect(await t.ok('volume', 'create', volume)).toBe(volume);
    await t.ok('volume', 'rm', volume);
    for (const [kind, refusal] of [
      [await send('POST', '/volumes/create', { Name: 'v'.repeat(256) }), /volume name is too long/],
      [await create('n'), /Invalid container name \(n\), only \[a-zA-Z0-9\]/],
    ] as const) {
      expect([kind.status, messageOf(kind)]).toEqual([400, expect.stringMatching(refusal)]);
    }
    await footprint.expectUnchanged();
  });

  it('ten thousand labels and a long command are fine', async () => {
    const labels = Object.fromEntries(Array.from({ length: 10_000 }, (_, at) => [`label.${at}`, `value ${at}`]));
    const answer = await create('labelled', { Labels: labels, Cmd: ['echo', 'x'.repeat(100_000)] });
    expect(answer.status).toBe(201);
    expect(
      await t.ok('inspect', '-f', '{{len .Config.Labels}} {{index .Config.Labels "label.9999"}}', 'labelled'),
    ).toBe('10000 value 9999');
    await t.ok('start', '-a', 'labelled');
    await t.ok('rm', 'labelled');
  });

  /** Send a JSON string that does not end until the engine answers or `limitBytes` are out. */
  function sendEndlessly(
    path: string,
    limitBytes: number,
  ): Promise<{ status: number; message: string; sentBytes: number }> {
    return new Promise((resolve, reject) => {
      let sentBytes = 0;
      let isAnswered = false;
      const call = request(
        { socketPath: t.engine.socket, method: 'POST', path, headers: { 'content-type': 'application/json' } },
        (response) => {
          isAnswered = true;
          let text = '';
          response.setEncoding('utf8').on('data', (part: string) => (text += part));
          response.on('end', () => {
            const { message } = JSON.parse(text) as { message: string };
            resolve({ status: response.statusCode ?? 0, message, sentBytes });
            call.destroy();
          });
        },
      );
      call.on('error', (error) => {
        if (!isAnswered) reject(error);
      });
      const chunk = Buffer.alloc(mebibyte, 'x');
      const more = (): void => {
        while (!isAnswered && sentBytes < limitBytes) {
          sentBytes += chunk.length;
          if (!call.write(chunk)) {
            call.once('drain', more);
            return;
          }
        }
        if (!isAnswered) call.end('"}');
      };
      call.write('{"Image": "busybox", "Hostname": "');
      more();
    });
  }
});
