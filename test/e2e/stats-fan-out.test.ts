import { request } from 'node:http';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { watchPeaks } from './memory-peak.js';
import { rawRequest } from './raw-http.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

const mebibyte = 1 << 20;
const names = Array.from({ length: 100 }, (_, at) => `c${at}`);

describe('stats of many containers for many clients', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
    const left = [...names];
    const start = async (): Promise<void> => {
      for (let name = left.shift(); name !== undefined; name = left.shift()) {
        const body = { Image: 'busybox', Cmd: ['sleep', '1000'], HostConfig: { NetworkMode: 'none' } };
        await rawRequest(t.engine.socket, 'POST', `/v1.51/containers/create?name=${name}`, body);
        await rawRequest(t.engine.socket, 'POST', `/v1.51/containers/${name}/start`);
      }
    };
    await Promise.all(Array.from({ length: 4 }, start));
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  /** An open stream; `reads` are the times of its samples so far. */
  function follow(name: string): { reads: string[]; end: () => void } {
    const reads: string[] = [];
    const call = request({ socketPath: t.engine.socket, path: `/v1.51/containers/${name}/stats` }, (response) => {
      const lines = createInterface(response);
      lines.on('line', (line) => reads.push((JSON.parse(line) as { read: string }).read));
      lines.on('error', () => undefined);
    });
    // It is destroyed at the end.
    call.on('error', () => undefined);
    call.end();
    return { reads, end: () => call.destroy() };
  }

  it('measure twenty containers once a second each for twenty clients', async () => {
    const services = await t.engine.services();
    const pids = services.filter(({ service }) => /^(container|api-gateway)$/.test(service)).map(({ pid }) => pid);
    const peaks = watchPeaks(pids);
    const clients = Array.from({ length: 20 }, () => names.slice(0, 20).map(follow));
    const streams = clients.flat();
    await expect.poll(() => streams.filter(({ reads }) => reads.length === 0).length).toBe(0);
    const begun = streams.map(({ reads }) => reads.length);
    await expect.poll(() => streams.filter(({ reads }, at) => reads.length < (begun[at] ?? 0) + 4).length).toBe(0);
    for (const [at, name] of names.slice(0, 20).entries()) {
      const seen = clients.map((ours, client) => ours[at]?.reads.slice(begun[client * 20 + at] ?? 0).slice(0, 4) ?? []);
      const moments = new Set(seen.flat());
      // They did not begin to look in the same second; with a measurement for each it would be eighty.
      expect([name, moments.size > 8]).toEqual([name, false]);
    }
    for (const { end } of streams) end();
    for (const bytes of peaks()) expect(bytes).toBeLessThan(64 * mebibyte);
  });

  it('docker stats shows a hundred', async () => {
    const shown = (await t.ok('stats', '--no-stream', '--format', '{{.Name}} {{.PIDs}}')).split('\n');
    expect(shown.sort()).toEqual(names.map((name) => `${name} 1`).sort());
  });
});
