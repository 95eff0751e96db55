import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';
import { rawRequest } from './raw-http.js';

describe('bad input', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const send = (method: string, path: string, body?: string | object) =>
    rawRequest(t.engine.socket, method, `/v1.51${path}`, body);

  it.each([
    ['malformed JSON', '{"Image": "busybox"', 400],
    ['not an object', '"text"', 400],
    ['empty body', '', 400],
    ['wrong type of Image', '{"Image": 5}', 400],
    ['wrong type of Cmd', '{"Image": "busybox", "Cmd": {"a": 1}}', 400],
    ['wrong type of Memory', '{"Image": "busybox", "HostConfig": {"Memory": "lots"}}', 400],
    ['unknown image', '{"Image": "no-such-image"}', 404],
    ['bad reference', '{"Image": "UPPER:::"}', 400],
    ['memory below the minimum', '{"Image": "busybox", "HostConfig": {"Memory": 1000}}', 400],
    [
      'negative pids beyond -1 with cpus above the machine',
      '{"Image": "busybox", "HostConfig": {"NanoCpus": 999000000000}}',
      400,
    ],
    [
      'conflicting cpu settings',
      '{"Image": "busybox", "HostConfig": {"NanoCpus": 1000000000, "CpuPeriod": 100000, "CpuQuota": 1000}}',
      400,
    ],
    ['bad port', '{"Image": "busybox", "ExposedPorts": {"99999/tcp": {}}}', 400],
    ['bad port protocol', '{"Image": "busybox", "ExposedPorts": {"80/quic": {}}}', 400],
    [
      'bad port binding',
      '{"Image": "busybox", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "abc"}]}}}',
      400,
    ],
    ['bad restart policy', '{"Image": "busybox", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}', 400],
    [
      'auto-remove with a restart policy',
      '{"Image": "busybox", "HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}}',
      400,
    ],
    ['bad network', '{"Image": "busybox", "HostConfig": {"NetworkMode": "container:absent"}}', 400],
    ['relative bind target', '{"Image": "busybox", "HostConfig": {"Binds": ["/tmp:relative"]}}', 400],
    ['bind to the root', '{"Image": "busybox", "HostConfig": {"Binds": ["/tmp:/"]}}', 400],
    [
      'missing bind source of a mount',
      '{"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "bind", "Source": "/no/such/path", "Target": "/x"}]}}',
      400,
    ],
    [
      'unknown mount type',
      '{"Image": "busybox", "HostConfig": {"Mounts": [{"Type": "teleport", "Target": "/x"}]}}',
      400,
    ],
    ['duplicate mount point', '{"Image": "busybox", "HostConfig": {"Binds": ["/tmp:/x", "/var:/x"]}}', 400],
    ['unknown log driver', '{"Image": "busybox", "HostConfig": {"LogConfig": {"Type": "pigeon"}}}', 400],
    ['unknown runtime', '{"Image": "busybox", "HostConfig": {"Runtime": "warp"}}', 400],
    ['bad stop signal', '{"Image": "busybox", "StopSignal": "NONSENSE"}', 400],
    ['bad environment', '{"Image": "busybox", "Env": ["=x"]}', 400],
    ['bad extra host', '{"Image": "busybox", "HostConfig": {"ExtraHosts": ["nohost"]}}', 400],
    ['NUL in the command', '{"Image": "busybox", "Cmd": ["a\\u0000b"]}', 400],
  ])('create with %s', async (_what, body, status) => {
    const answer = await send('POST', '/containers/create', body);
    expect(answer.json).toEqual({ message: expect.stringMatching(/\S/) as string });
    expect(answer.body.includes('\\n    at ')).toBe(false);
    expect(answer.status).toBe(status);
    expect((await send('GET', '/containers/json?all=1')).json).toEqual([]);
    expect(((await send('GET', '/volumes')).json as { Volumes: unknown[] | null }).Volumes ?? []).toEqual([]);
  });

  it('ignores unknown fields, as dockerd does', async () => {
    const answer = await send('POST', '/containers/create?name=lenient', { Image: 'busybox', NoSuchField: { a: [1] } });
    expect(answer.status).toBe(201);
    expect((await send('DELETE', '/containers/lenient')).status).toBe(204);
  });

  it.each([
    ['GET', '/containers/absent/json', 404, 'No such container: absent'],
    ['POST', '/containers/absent/start', 404, 'No such container: absent'],
    ['POST', '/containers/absent/kill', 404, 'No such container: absent'],
    ['DELETE', '/containers/absent', 404, 'No such container: absent'],
    ['GET', '/containers/absent/logs?stdout=1', 404, 'No such container: absent'],
    ['POST', '/containers/absent/wait', 404, 'No such container: absent'],
    ['GET', '/images/absent/json', 404, 'No such image: absent'],
    ['GET', '/volumes/absent', 404, 'get absent: no such volume'],
    ['GET', '/networks/absent', 404, 'network absent not found'],
    ['GET', '/containers/json?filters=%7Bbroken', 400, 'invalid'],
    ['GET', '/containers/json?limit=abc', 400, ''],
    ['GET', '/nowhere', 404, 'page not found'],
    ['POST', '/containers/absent/resize?h=a&w=b', 400, ''],
  ])('%s %s answers %i', async (method, path, status, phrase) => {
    const answer = await send(method, path);
    expect(answer.status).toBe(status);
    expect((answer.json as { message: string }).message).toContain(phrase);
  });

  it('names both versions when the client is too new or too old', async () => {
    const tooNew = await rawRequest(t.engine.socket, 'GET', '/v1.99/info');
    expect(tooNew.status).toBe(400);
    expect(tooNew.json).toEqual({ message: 'client version 1.99 is too new. Maximum supported API version is 1.51' });
    const tooOld = await rawRequest(t.engine.socket, 'GET', '/v1.12/info');
    expect(tooOld.status).toBe(400);
    expect((tooOld.json as { message: string }).message).toMatch(
      /^client version 1\.12 is too old\. Minimum supported API version is 1\.24/,
    );
  });

  it('answers every version in between', async () => {
    for (let minor = 24; minor <= 51; minor += 1) {
      const answer = await rawRequest(t.engine.socket, 'GET', `/v1.${minor}/containers/json?all=1`);
      expect([minor, answer.status]).toEqual([minor, 200]);
    }
  });

  it('says clearly what is not implemented', async () => {
    const answer = await send('GET', '/swarm');
    expect([501, 503]).toContain(answer.status);
    expect((answer.json as { message: string }).message).toMatch(/not implemented|not a swarm manager/i);
  });
});
