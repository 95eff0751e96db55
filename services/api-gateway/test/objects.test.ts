import { events, image } from '@flotilla/proto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { FakeEngine } from './fake-engine.js';
import { RawConnection, send } from './http-client.js';

let engine: FakeEngine;
const get = (path: string) => send(engine.socket, 'GET', path);
const filters = (value: unknown): string => `filters=${encodeURIComponent(JSON.stringify(value))}`;

beforeEach(async () => {
  engine = await FakeEngine.start();
});
afterEach(() => engine[Symbol.asyncDispose]());

test('pull prints the lines of dockerd', async () => {
  const got = await send(engine.socket, 'POST', '/images/create?fromImage=127.0.0.1:5000/a/b&tag=1', undefined, {
    'x-registry-auth': Buffer.from('{"username":"u","password":"p"}').toString('base64url'),
  });
  expect(got.status).toBe(200);
  expect(got.headers['content-type']).toBe('application/json');
  expect(got.text.split('\r\n')).toEqual([
    '{"status":"Pulling from 127.0.0.1:5000/a/b","id":"1"}',
    '{"status":"Pulling fs layer","progressDetail":{},"id":"aaa"}',
    `{"status":"Downloading","progressDetail":{"current":50,"total":100},"progress":"[${'='.repeat(25)}>${' '.repeat(25)}]      50B/100B","id":"aaa"}`,
    '{"status":"Status: Downloaded newer image for x"}',
    '',
  ]);
  expect(engine.pulls[0]).toMatchObject({
    name: '127.0.0.1:5000/a/b',
    tag: '1',
    allTags: false,
    credentials: { username: 'u', password: 'p' },
  });
  expect((await get('/images/127.0.0.1:5000/a/b:1/json')).status).toBe(200);
});

test('a pull that fails has a status before its first line and an errorDetail after it', async () => {
  expect(await send(engine.socket, 'POST', '/images/create?fromImage=missing&tag=1')).toMatchObject({
    status: 404,
    json: { message: 'pull access denied for missing, repository does not exist' },
  });
  const broken = await send(engine.socket, 'POST', '/images/create?fromImage=broken&tag=1');
  expect(broken.status).toBe(200);
  expect(broken.text.trimEnd().split('\r\n').at(-1)).toBe(
    '{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}',
  );
  expect(await send(engine.socket, 'POST', '/images/create?fromImage=UPPER&tag=1')).toMatchObject({
    status: 400,
    json: { message: 'invalid reference format: repository name (library/UPPER) must be lowercase' },
  });
  expect((await send(engine.socket, 'POST', '/images/create?fromImage=a&tag=b%20c')).json).toEqual({
    message: 'invalid tag format',
  });
});

test('load streams its body, and a refusal in the middle is a reply', async () => {
  const got = await send(engine.socket, 'POST', '/images/load?quiet=1', Buffer.alloc(2_000_000), {
    'content-type': 'application/x-tar',
  });
  expect(got).toMatchObject({ status: 200, text: '{"stream":"Loaded image: x:latest\\n"}\r\n' });
  expect(engine.archives.loaded).toBe(2_000_000);
  const junk = Buffer.alloc(5_000_000);
  junk.write('junk');
  expect(await send(engine.socket, 'POST', '/images/load', junk)).toMatchObject({
    status: 400,
    json: { message: 'archive/tar: invalid tar header' },
  });
});

test('a platform is text throughout', async () => {
  engine.addImage('busybox:latest');
  const platform = encodeURIComponent('{"os":"linux","architecture":5}');
  for (const path of ['/images/get?names=busybox&platform=', '/images/busybox/json?platform=']) {
    expect(await get(path + platform)).toMatchObject({
      status: 400,
      json: { message: 'failed to parse platform: architecture is not a string' },
    });
  }
});

test('images are found by name, id and prefix, and shaped by version', async () => {
  const busybox = engine.addImage('busybox:latest', { repoDigests: [`busybox@sha256:${'3'.repeat(64)}`] });
  const hex = busybox.id.slice('sha256:'.length);
  for (const name of [
    'busybox',
    'busybox:latest',
    'docker.io/library/busybox',
    busybox.id,
    hex,
    hex.slice(0, 12),
    `busybox@sha256:${'3'.repeat(64)}`,
    `busybox:latest@sha256:${'3'.repeat(64)}`,
    `busybox:other@sha256:${'3'.repeat(64)}`,
  ]) {
    expect([name, (await get(`/images/${name}/json`)).status]).toEqual([name, 200]);
  }
  expect(await get('/images/nothing/json')).toMatchObject({
    status: 404,
    json: { message: 'No such image: nothing:latest' },
  });
  const newest = (await get('/v1.51/images/busybox/json')).json as Record<string, unknown>;
  expect(newest).toMatchObject({
    Os: 'linux',
    Architecture: 'amd64',
    Config: { Cmd: ['sh'], Entrypoint: null },
    RootFS: { Type: 'layers' },
  });
  expect(newest['Config']).not.toHaveProperty('Hostname');
  const old = (await get('/v1.43/images/busybox/json')).json as Record<string, unknown>;
  expect(old).toMatchObject({ VirtualSize: 4_000_000, Container: '', Config: { Hostname: '' } });
  expect(old).not.toHaveProperty('Descriptor');
});

test('images of several platforms under one name, with their manifests', async () => {
  const digest = (digit: string): string => `sha256:${digit.repeat(64)}`;
  const names = { repoTags: ['web:1'], repoDigests: [`web@${digest('3')}`] };
  const foreign = engine.addImage('', { ...names, secondaryNames: [...names.repoTags, ...names.repoDigests] });
  const own = engine.addImage('', names);
  engine.addContainer('user', { imageId: own.id });
  const descriptor = {
    mediaType: 'm',
    digest: digest('4'),
    sizeBytes: 5n,
    platform: { os: 'linux', architecture: 'amd64' },
  };
  const summaries: Parameters<typeof image.ManifestSummary.fromPartial>[0][] = [
    {
      descriptor,
      kind: image.ManifestKind.IMAGE,
      available: true,
      contentBytes: 7n,
      unpackedBytes: 9n,
      containerIds: ['c1'],
    },
    {
      descriptor: { mediaType: 'm', digest: digest('5') },
      kind: image.ManifestKind.ATTESTATION,
      attestationFor: digest('4'),
    },
    { descriptor: { mediaType: 'm', digest: digest('6') }, kind: image.ManifestKind.UNKNOWN },
  ];
  engine.manifests.set(
    own.id,
    summaries.map((it) => image.ManifestSummary.fromPartial(it)),
  );
  const shown = [
    {
      ID: digest('4'),
      Descriptor: { mediaType: 'm', digest: digest('4'), size: 5, platform: { os: 'linux', architecture: 'amd64' } },
      Available: true,
      Size: { Content: 7, Total: 16 },
      Kind: 'image',
      ImageData: { Platform: { os: 'linux', architecture: 'amd64' }, Containers: ['c1'], Size: { Unpacked: 9 } },
    },
    { ID: digest('5'), Available: false, Kind: 'attestation', AttestationData: { For: digest('4') } },
    { ID: digest('6'), Available: false, Size: { Content: 0, Total: 0 }, Kind: 'unknown' },
  ];
  for (const name of ['web:1', `web@${digest('3')}`]) {
    expect((await get(`/images/${name}/json`)).json).toMatchObject({ Id: own.id });
  }
  const rows = async (path: string) =>
    (await get(path)).json as { Id: string; Containers: number; Manifests?: unknown }[];
  const plain = await rows('/v1.51/images/json');
  expect(plain.map(({ Id, Containers }) => [Id, Containers]).sort()).toEqual(
    [
      [foreign.id, 0],
      [own.id, 1],
    ].sort(),
  );
  expect(plain[0]).not.toHaveProperty('Manifests');
  expect((await rows('/v1.50/images/json')).map(({ Containers }) => Containers)).toEqual([-1, -1]);
  expect(await rows('/v1.51/images/json?manifests=1')).toMatchObject([{ Id: own.id, Manifests: shown }]);
  expect(await rows('/v1.46/images/json?manifests=1')).toHaveLength(2);
  expect((await get('/v1.48/images/web:1/json?manifests=1')).json).toMatchObject({ Id: own.id, Manifests: shown });
  expect((await get('/v1.47/images/web:1/json?manifests=1')).json).not.toHaveProperty('Manifests');
  expect(await get('/images/web:1/json?manifests=1&platform=linux/arm64')).toMatchObject({
    status: 400,
    json: { message: 'conflicting options: manifests and platform options cannot both be set' },
  });
});

test('image filters and removal', async () => {
  engine.addImage('busybox:latest', { createdAt: { seconds: 10n } });
  engine.addImage('127.0.0.1:5000/a/web:2', { createdAt: { seconds: 20n }, config: { labels: { a: 'b' } } });
  const bare = engine.addImage('x', { repoTags: [], createdAt: { seconds: 30n } });
  const names = async (query: string): Promise<unknown[]> =>
    ((await get(`/images/json?${query}`)).json as { RepoTags: string[] }[]).map(({ RepoTags }) => RepoTags[0]);
  expect(await names('')).toEqual([undefined, '127.0.0.1:5000/a/web:2', 'busybox:latest']);
  expect(await names(filters({ dangling: ['true'] }))).toEqual([undefined]);
  expect(await names(filters({ dangling: ['false'] }))).toEqual(['127.0.0.1:5000/a/web:2', 'busybox:latest']);
  expect(await names(filters({ reference: ['busy*'] }))).toEqual(['busybox:latest']);
  expect(await names(filters({ reference: ['*/*/web'] }))).toEqual(['127.0.0.1:5000/a/web:2']);
  expect(await names(filters({ label: ['a=b'] }))).toEqual(['127.0.0.1:5000/a/web:2']);
  expect(await names(filters({ since: ['busybox'] }))).toEqual([undefined, '127.0.0.1:5000/a/web:2']);
  expect(await get(`/images/json?${filters({ dangling: ['maybe'] })}`)).toMatchObject({
    status: 400,
    json: { message: "invalid filter 'dangling=[maybe]'" },
  });
  expect(
    ((await get('/v1.42/images/json')).json as { Id: string; RepoTags: string[] }[]).find(({ Id }) => Id === bare.id)
      ?.RepoTags,
  ).toEqual(['<none>:<none>']);
  const removed = await send(engine.socket, 'DELETE', '/images/127.0.0.1:5000/a/web:2');
  expect(removed.json).toMatchObject([
    { Untagged: '127.0.0.1:5000/a/web:2' },
    { Deleted: expect.stringMatching(/^sha256:/) as string },
  ]);
  expect(await send(engine.socket, 'POST', '/images/missing/tag?repo=y')).toMatchObject({
    status: 404,
    json: { message: 'No such image: missing:latest' },
  });
});

test('volumes', async () => {
  const made = await send(engine.socket, 'POST', '/volumes/create', { Name: 'data', Labels: { a: 'b' } });
  expect(made).toMatchObject({
    status: 201,
    json: { Name: 'data', Driver: 'local', Scope: 'local', Labels: { a: 'b' }, Options: {} },
  });
  expect((await get(`/volumes?${filters({ label: ['a'] })}`)).json).toMatchObject({
    Volumes: [{ Name: 'data' }],
    Warnings: [],
  });
  expect((await get(`/volumes?${filters({ name: ['other'] })}`)).json).toMatchObject({ Volumes: [] });
  expect((await get('/volumes/data')).status).toBe(200);
  expect(await get('/volumes/nope')).toMatchObject({ status: 404, json: { message: 'get nope: no such volume' } });
  expect((await send(engine.socket, 'DELETE', '/volumes/data')).status).toBe(204);
  expect((await send(engine.socket, 'DELETE', '/volumes/data')).status).toBe(404);
  expect(await send(engine.socket, 'POST', '/volumes/create', { Labels: ['a'] })).toMatchObject({
    status: 400,
    json: {
      message:
        'invalid JSON: json: cannot unmarshal array into Go struct field CreateOptions.Labels of type map[string]string',
    },
  });
});

test('networks', async () => {
  const made = await send(engine.socket, 'POST', '/networks/create', {
    Name: 'mynet',
    IPAM: { Config: [{ Subnet: '10.1.0.0/24' }] },
  });
  expect(made.status).toBe(201);
  const { Id } = made.json as { Id: string };
  for (const path of ['/networks', '/networks/', `/networks?${filters({ name: ['myn'], type: ['custom'] })}`]) {
    expect((await get(path)).json).toMatchObject([
      { Name: 'mynet', IPAM: { Driver: 'default', Config: [{ Subnet: '10.1.0.0/24' }] }, Containers: {} },
    ]);
  }
  for (const name of ['mynet', Id, Id.slice(0, 10)])
    expect((await get(`/networks/${name}`)).json).toMatchObject({ Id });
  expect(await get('/networks/nope')).toMatchObject({ status: 404, json: { message: 'network nope not found' } });
  expect((await get('/v1.47/networks/mynet')).json).not.toHaveProperty('EnableIPv4');
});

test('events are filtered and shaped', async () => {
  const event = (part: Partial<events.Event>): events.Event =>
    events.Event.fromPartial({
      type: 'container',
      action: 'start',
      actorId: 'c1',
      attributes: { name: 'web', image: 'busybox:1', a: 'b' },
      timeNs: 1_700_000_000_123_456_789n,
      ...part,
    });
  engine.events.history = [
    event({}),
    event({ action: 'exec_create: sh -c true' }),
    event({ type: 'image', action: 'create', actorId: 'sha256:1', attributes: { name: 'busybox:1' } }),
    event({ type: 'network', action: 'connect', actorId: 'n1', attributes: { name: 'bridge' } }),
  ];
  const lines = async (query: string, version = ''): Promise<string[]> =>
    (await get(`${version}/events?until=1800000000&${query}`)).text
      .trimEnd()
      .split('\n')
      .filter((line) => line !== '');
  const all = await lines('since=0');
  expect(all[0]).toBe(
    '{"status":"start","id":"c1","from":"busybox:1","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"name":"web","image":"busybox:1","a":"b"}},"scope":"local","time":1700000000,"timeNano":1700000000123456789}',
  );
  expect(all).toHaveLength(4);
  expect(await lines('', '/v1.45')).toHaveLength(3);
  for (const [value, count] of [
    [{ type: ['container'] }, 2],
    [{ event: ['exec_create'] }, 1],
    [{ container: ['web'] }, 2],
    [{ image: ['busybox'] }, 3],
    [{ label: ['a=b'] }, 2],
    [{ type: ['image', 'network'] }, 2],
    [{ network: ['bri'] }, 1],
    [{ scope: ['swarm'] }, 0],
  ] as const) {
    expect([value, (await lines(filters(value))).length]).toEqual([value, count]);
  }
  expect(await get('/events?since=20&until=10')).toMatchObject({ status: 400 });
  expect(await get('/events?since=x')).toMatchObject({ status: 400 });
  engine.events.isDown = true;
  expect(await get('/events')).toMatchObject({
    status: 503,
    json: { message: 'events are not available: NATS is not reachable' },
  });
});

test('an open event stream sends its headers at once', async () => {
  const raw = new RawConnection(engine.socket);
  raw.write('GET /events HTTP/1.1\r\nHost: d\r\n\r\n');
  expect(await raw.until((text) => text.includes('\r\n\r\n'))).toMatch(/^HTTP\/1\.1 200 OK/);
  raw.close();
});
