import { container } from '@flotilla/proto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeEngine } from './fake-engine.js';
import { RawConnection, send } from './http-client.js';

const { ContainerStatus } = container;

let engine: FakeEngine;
const get = (path: string) => send(engine.socket, 'GET', path);
const list = async (query: string): Promise<string[]> =>
  ((await get(`/containers/json?${query}`)).json as { Names: string[] }[]).map(({ Names }) => Names[0] ?? '');
const filters = (value: unknown): string => `all=1&filters=${encodeURIComponent(JSON.stringify(value))}`;

beforeEach(async () => {
  engine = await FakeEngine.start();
});
afterEach(() => engine[Symbol.asyncDispose]());

test('a created container can be read at once, however late the stream is', async () => {
  await get('/containers/json');
  engine.containers.lagMs = 60;
  const made = await send(engine.socket, 'POST', '/v1.51/containers/create?name=web', {
    Image: 'busybox',
    Cmd: 'true',
    Env: ['A=b'],
    ExposedPorts: { '80': {} },
    NoSuchField: { deep: [1] },
    HostConfig: {
      Memory: 67108864,
      PortBindings: { '80/tcp': [{ HostPort: '8080' }] },
      RestartPolicy: { Name: 'always' },
      Mounts: [{ Type: 'volume', Source: 'v', Target: '/v', VolumeOptions: { Subpath: 'x' } }],
      ConsoleSize: [24, 80],
    },
    NetworkingConfig: { EndpointsConfig: { default: { Aliases: ['a'] } } },
  });
  expect(made.status).toBe(201);
  const { Id } = made.json as { Id: string };
  expect(engine.created[0]).toMatchObject({
    name: 'web',
    config: { cmd: ['true'], hasCmd: true, hasEntrypoint: false, env: ['A=b'], exposedPorts: ['80/tcp'] },
    hostConfig: {
      networkMode: 'bridge',
      portBindings: [{ containerPort: '80/tcp', hostPorts: [{ hostIp: '', hostPort: '8080' }] }],
      resources: { memoryBytes: 67108864n },
      consoleHeight: 24,
      consoleWidth: 80,
      mounts: [{ volumeOptions: { subpath: 'x' } }],
    },
    endpoints: [{ network: 'bridge', aliases: ['a'] }],
  });
  expect((await get(`/containers/${Id}/json`)).json).toMatchObject({
    Name: '/web',
    HostConfig: { Memory: 67108864, RestartPolicy: { Name: 'always' } },
  });
  expect(await list('all=1')).toEqual(['/web']);
  expect((await send(engine.socket, 'POST', '/containers/create?name=web', { Image: 'busybox' })).status).toBe(409);
});

test.each([
  ['{"Image":', 400, 'invalid JSON: unexpected EOF'],
  ['', 400, 'invalid JSON: got EOF while reading request body'],
  ['{}', 400, 'config cannot be empty in order to create a container'],
  [
    '{"Image":"x","Tty":"yes"}',
    400,
    'invalid JSON: json: cannot unmarshal string into Go struct field CreateRequest.Tty of type bool',
  ],
  ['{"Image":"x","ExposedPorts":{"99999/tcp":{}}}', 400, 'invalid port specification: "99999/tcp"'],
  ['{"Image":"x"} {}', 400, 'unexpected content after JSON'],
])('create refuses %s', async (body, status, message) => {
  const got = await send(engine.socket, 'POST', '/containers/create', body, { 'content-type': 'application/json' });
  expect(got.status).toBe(status);
  expect(got.json).toEqual({ message });
});

test('create refuses another content type', async () => {
  const got = await send(engine.socket, 'POST', '/containers/create', 'x=1', { 'content-type': 'text/plain' });
  expect(got).toMatchObject({
    status: 400,
    json: { message: "unsupported Content-Type header (text/plain): must be 'application/json'" },
  });
});

test('inspect finds names, ids and prefixes', async () => {
  const web = engine.addContainer('web', { id: 'ab'.repeat(32) });
  engine.addContainer('db', { id: `ab${'c'.repeat(62)}` });
  for (const name of ['web', '%2Fweb', web.id, web.id.slice(0, 12)])
    expect((await get(`/containers/${name}/json`)).json).toMatchObject({ Id: web.id });
  expect(await get('/containers/ab/json')).toMatchObject({
    status: 400,
    json: { message: 'Multiple IDs found with provided prefix: ab' },
  });
  expect(await get('/containers/zz/json')).toMatchObject({ status: 404, json: { message: 'No such container: zz' } });
  expect((await get('/containers/web/json?size=1')).json).toMatchObject({ SizeRw: 12, SizeRootFs: 4000012 });
});

test('inspect has the shape of each version', async () => {
  engine.addContainer('web', {
    networkSettings: {
      networks: [
        {
          network: 'mynet',
          networkId: 'n1',
          request: { network: 'mynet', aliases: ['w'] },
          endpoint: { id: 'e', dnsNames: ['web', 'w'] },
        },
      ],
    },
  });
  const at = async (version: string): Promise<Record<string, unknown>> =>
    (await get(`/v${version}/containers/web/json`)).json as Record<string, unknown>;
  const newest = await at('1.51');
  expect(newest).toMatchObject({
    State: { Status: 'running', Running: true, Pid: 42 },
    NetworkSettings: {
      Ports: { '80/tcp': null },
      Networks: { mynet: { Aliases: ['w'], DNSNames: ['web', 'w'], GwPriority: 0 } },
    },
  });
  const old = await at('1.40');
  expect(old).toMatchObject({
    HostConfig: { KernelMemory: 0 },
    NetworkSettings: { Networks: { mynet: { Aliases: ['w', (newest['Id'] as string).slice(0, 12), 'h'] } } },
  });
  expect(old['HostConfig']).not.toHaveProperty('CgroupnsMode');
  expect(JSON.stringify(old)).not.toContain('DNSNames');
});

test('the list shows how long containers are up, and other texts by version', async () => {
  const busybox = engine.addImage('busybox:latest');
  const other = engine.addImage('other:latest');
  engine.addContainer('web', { imageId: busybox.id, createdAt: { seconds: 10n } });
  engine.addContainer('old', {
    imageId: other.id,
    state: {
      status: ContainerStatus.EXITED,
      exitCode: 3,
      startedAt: { seconds: 1n },
      finishedAt: { seconds: BigInt(Math.floor(Date.now() / 1000) - 7200) },
    },
  });
  const shown = (await get('/containers/json?all=1')).json as { Names: string[]; Status: string; Image: string }[];
  expect(shown.map(({ Names, Status, Image }) => [Names[0], Status, Image])).toEqual([
    ['/old', 'Exited (3) 2 hours ago', other.id],
    ['/web', 'Up 5 seconds', 'busybox'],
  ]);
  expect(shown[1]).toMatchObject({
    Command: "sleep '1 d'",
    Ports: [{ IP: '0.0.0.0', PrivatePort: 80, PublicPort: 8080, Type: 'tcp' }],
    NetworkSettings: { Networks: { bridge: { IPAddress: '172.17.0.2' } } },
  });
  expect(await list('')).toEqual(['/web']);
  await expect
    .poll(async () => ((await get('/containers/json')).json as { Status: string }[])[0]?.Status)
    .toBe('Up 6 seconds');
});

test('every filter', async () => {
  const image = engine.addImage('busybox:latest');
  const first = engine.addContainer('first', { createdAt: { seconds: 100n }, imageId: image.id });
  engine.addContainer('second', {
    createdAt: { seconds: 200n },
    config: { labels: { tier: 'two' }, image: 'x' },
    state: { status: ContainerStatus.EXITED, exitCode: 7, startedAt: { seconds: 1n }, finishedAt: { seconds: 2n } },
    mounts: [{ type: 'volume', name: 'data', destination: '/d' }],
    networkSettings: { networks: [{ network: 'mynet', networkId: 'abc123' }] },
  });
  engine.addContainer('third', {
    createdAt: { seconds: 300n },
    state: { status: ContainerStatus.PAUSED, startedAt: { seconds: 1n }, health: { status: 'healthy' } },
  });
  expect(await list('all=1')).toEqual(['/third', '/second', '/first']);
  expect(await list('')).toEqual(['/third', '/first']);
  expect(await list('limit=2')).toEqual(['/third', '/second']);
  const cases: [unknown, string[]][] = [
    [{ id: [first.id.slice(0, 12)] }, ['/first']],
    [{ name: ['^/sec', 'thi'] }, ['/third', '/second']],
    [{ label: ['tier=two'] }, ['/second']],
    [{ 'label!': ['tier=two'] }, ['/third', '/first']],
    [{ status: ['exited', 'paused'] }, ['/third', '/second']],
    [{ status: { exited: true } }, ['/second']],
    [{ exited: ['7'] }, ['/second']],
    [{ health: ['healthy'] }, ['/third']],
    [{ volume: ['/d'] }, ['/second']],
    [{ volume: ['data'] }, ['/second']],
    [{ network: ['mynet'] }, ['/second']],
    [{ network: ['abc'] }, ['/second']],
    [{ before: ['second'] }, ['/first']],
    [{ since: ['second'] }, ['/third']],
    [{ ancestor: ['busybox'] }, ['/first']],
    [{ ancestor: ['nothing'] }, []],
    [{ publish: ['80'] }, ['/third', '/first']],
    [{ expose: ['80-90/tcp'] }, ['/third', '/first']],
    [{ 'is-task': ['true'] }, []],
  ];
  for (const [value, names] of cases) expect([value, await list(filters(value))]).toEqual([value, names]);
  expect(await list(`filters=${encodeURIComponent('{"status":["exited"]}')}`)).toEqual(['/second']);
  for (const [value, message] of [
    [{ nonsense: ['1'] }, "invalid filter 'nonsense'"],
    [{ status: ['gone'] }, "invalid filter 'status=gone'"],
    [{ before: ['nope'] }, 'No such container: nope'],
    ['x', 'invalid filter'],
  ] as const) {
    expect((await get(`/containers/json?${filters(value)}`)).json).toEqual({ message });
  }
  const sized = (await get('/containers/json?size=1')).json as { SizeRw: number }[];
  expect(sized.map(({ SizeRw }) => SizeRw)).toEqual([12, 12]);
});

test('starting what runs is 304, removing what runs is refused', async () => {
  engine.addContainer('web');
  expect((await send(engine.socket, 'POST', '/containers/web/start')).status).toBe(304);
  expect(await send(engine.socket, 'DELETE', '/containers/web')).toMatchObject({
    status: 409,
    json: { message: 'cannot remove container "/web": container is running' },
  });
  expect((await send(engine.socket, 'POST', '/containers/web/stop?t=1')).status).toBe(204);
  expect(await send(engine.socket, 'POST', '/containers/web/stop?t=soon')).toMatchObject({ status: 400 });
  expect((await send(engine.socket, 'DELETE', '/containers/web')).status).toBe(204);
  expect(await get('/containers/web/json')).toMatchObject({ status: 404 });
});

test('wait sends its headers at once, and an inspect afterwards shows the end', async () => {
  const { id } = engine.addContainer('web');
  await get('/containers/json');
  engine.containers.lagMs = 40;
  const raw = new RawConnection(engine.socket);
  raw.write('POST /v1.43/containers/web/wait?condition=not-running HTTP/1.1\r\nHost: d\r\n\r\n');
  const head = await raw.until((text) => text.includes('\r\n\r\n'));
  expect(head).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  engine.exits.get(id)?.(5);
  expect(await raw.until((text) => text.includes('}'))).toContain('{"StatusCode":5}');
  expect((await get('/containers/web/json')).json).toMatchObject({ State: { Status: 'exited' } });
  raw.close();
  expect(await send(engine.socket, 'POST', '/containers/web/wait?condition=never')).toMatchObject({
    status: 400,
    json: { message: 'invalid condition: "never"' },
  });
  expect((await send(engine.socket, 'POST', '/containers/zz/wait')).status).toBe(404);
});

test('a wait goes on after the death of its owner', async () => {
  const { id } = engine.addContainer('web');
  const raw = new RawConnection(engine.socket);
  raw.write('POST /containers/web/wait HTTP/1.1\r\nHost: d\r\n\r\n');
  await raw.until((text) => text.includes('\r\n\r\n'));
  engine.exits.delete(id);
  await engine.stopService('container');
  await engine.startService('container');
  await expect.poll(() => engine.exits.has(id)).toBe(true);
  engine.exits.get(id)?.(0);
  expect(await raw.until((text) => text.includes('}'))).toContain('{"StatusCode":0}');
  raw.close();
});

test('while the stream is down, the owner answers as soon as it is back', async () => {
  engine.addContainer('web');
  await get('/containers/json');
  await engine.stopService('container');
  const asked = get('/containers/json');
  const inspected = get('/containers/web/json');
  const made = send(engine.socket, 'POST', '/containers/create?name=new', { Image: 'busybox' });
  await new Promise((resolve) => setTimeout(resolve, 100));
  await engine.startService('container');
  expect((await asked).status).toBe(200);
  expect((await inspected).json).toMatchObject({ Name: '/web' });
  expect((await made).status).toBe(201);
  expect(engine.created).toHaveLength(1);
});

test('logs are frames with their type, and go on where they broke off', async () => {
  engine.addContainer('web');
  engine.logs = Array.from({ length: 50 }, (_, i) => ({ text: `line ${i}\n`, stderr: i % 2 === 1 }));
  engine.breakLogsAfter = 20;
  const got = await get('/v1.42/containers/web/logs?stdout=1&stderr=1');
  expect(got.headers['content-type']).toBe('application/vnd.docker.multiplexed-stream');
  const lines = [...got.text.matchAll(/line (\d+)\n/g)].map((match) => Number(match[1]));
  expect(lines).toEqual(Array.from({ length: 50 }, (_, i) => i));
  expect((await get('/v1.41/containers/web/logs?stdout=1')).headers['content-type']).toBe(
    'application/vnd.docker.raw-stream',
  );
  expect(await get('/containers/web/logs')).toMatchObject({
    status: 400,
    json: { message: 'Bad parameters: you must choose at least one stream' },
  });
  expect((await get('/containers/zz/logs?stdout=1')).status).toBe(404);
});

test('an archive is streamed to the owner', async () => {
  const got = await send(engine.socket, 'PUT', '/containers/web/archive?path=/', Buffer.alloc(3_000_000), {
    'content-type': 'application/x-tar',
  });
  expect(got.status).toBe(200);
  expect(engine.loaded).toBe(3_000_000);
  expect(await send(engine.socket, 'PUT', '/containers/web/archive')).toMatchObject({ status: 400 });
});

test('exec', async () => {
  expect(await send(engine.socket, 'POST', '/containers/web/exec', { Cmd: ['echo'] })).toMatchObject({
    status: 201,
    json: { Id: 'exec1' },
  });
  expect(await send(engine.socket, 'POST', '/containers/web/exec', {})).toMatchObject({
    status: 400,
    json: { message: 'No exec command specified' },
  });
  expect((await get('/exec/exec1/json')).json).toMatchObject({
    ID: 'exec1',
    ExitCode: 0,
    ProcessConfig: { entrypoint: 'echo', arguments: ['hi'] },
  });
  expect(await get('/exec/none/json')).toMatchObject({ status: 404, json: { message: 'No such exec instance: none' } });
  expect(await send(engine.socket, 'POST', '/exec/exec1/start', { Detach: true })).toMatchObject({
    status: 200,
    text: '',
  });
});
