import { stat } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FakeEngine } from './fake-engine.js';
import { RawConnection, send } from './http-client.js';

let engine: FakeEngine;
beforeAll(async () => {
  engine = await FakeEngine.start();
});
afterAll(() => engine[Symbol.asyncDispose]());

test('the socket is for its owner and group', async () => {
  expect((await stat(engine.socket)).mode & 0o777).toBe(0o660);
});

test.each(['/_ping', '/v1.41/_ping'])('ping at %s', async (path) => {
  const got = await send(engine.socket, 'GET', path);
  expect(got).toMatchObject({ status: 200, text: 'OK' });
  expect(got.headers).toMatchObject({
    'api-version': '1.51',
    ostype: 'linux',
    'docker-experimental': 'false',
    'cache-control': 'no-cache, no-store, must-revalidate',
    pragma: 'no-cache',
    swarm: 'inactive',
    'builder-version': '1',
  });
  const head = await send(engine.socket, 'HEAD', path);
  expect(head).toMatchObject({ status: 200, text: '' });
});

test.each([
  ['/v1.99/info', 400, 'client version 1.99 is too new. Maximum supported API version is 1.51'],
  [
    '/v1.12/info',
    400,
    'client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version',
  ],
  ['/nonsense', 404, 'page not found'],
  ['/v1.41/nonsense', 404, 'page not found'],
])('GET %s', async (path, status, message) => {
  const got = await send(engine.socket, 'GET', path);
  expect(got.status).toBe(status);
  expect(got.json).toEqual({ message });
});

test('a wrong method is not found, OPTIONS is empty', async () => {
  expect(await send(engine.socket, 'PUT', '/images/json')).toMatchObject({ status: 404 });
  expect(await send(engine.socket, 'OPTIONS', '/anything')).toMatchObject({ status: 200, text: '' });
});

test('what is not built says so', async () => {
  const build = await send(engine.socket, 'POST', '/build');
  expect(build.status).toBe(501);
  expect(build.json).toEqual({
    message: 'building images is not implemented: build elsewhere and load or pull the image',
  });
  expect((await send(engine.socket, 'DELETE', '/containers/x/checkpoints/y')).status).toBe(501);
  expect((await send(engine.socket, 'GET', '/services')).status).toBe(503);
  // Known to the contract, not to the fake: the owner's UNIMPLEMENTED.
  expect((await send(engine.socket, 'POST', '/containers/x/pause')).status).toBe(501);
});

test('what there is none of is empty', async () => {
  expect((await send(engine.socket, 'GET', '/plugins')).json).toEqual([]);
  const prune = (filters: unknown) =>
    send(engine.socket, 'POST', `/build/prune?filters=${encodeURIComponent(JSON.stringify(filters))}`);
  expect(await prune({ until: ['1h'] })).toMatchObject({ status: 200, json: { CachesDeleted: [], SpaceReclaimed: 0 } });
  expect(await prune([])).toMatchObject({ status: 400, json: { message: 'invalid filter' } });
});

test('an Upgrade header on an ordinary request is ignored', async () => {
  const got = await send(engine.socket, 'GET', '/_ping', undefined, { connection: 'Upgrade', upgrade: 'TLS/1.2' });
  expect(got).toMatchObject({ status: 200, text: 'OK' });
  const body = await send(
    engine.socket,
    'POST',
    '/volumes/create',
    { Name: 'up' },
    { connection: 'Upgrade', upgrade: 'h2c' },
  );
  expect(body.status).toBe(201);
});

test('garbage is refused and the server goes on', async () => {
  const raw = new RawConnection(engine.socket);
  raw.write('\x16\x03\x01nonsense\r\n\r\n');
  expect(await raw.all()).toContain('400 Bad Request');
  expect((await send(engine.socket, 'GET', '/_ping')).status).toBe(200);
});

test('version and info tell of every service', async () => {
  const version = (await send(engine.socket, 'GET', '/version')).json as {
    Components: { Name: string }[];
    ApiVersion: string;
    MinAPIVersion: string;
  };
  expect(version).toMatchObject({ Version: '0.1.0', ApiVersion: '1.51', MinAPIVersion: '1.24', Os: 'linux' });
  expect(version.Components.map(({ Name }) => Name)).toEqual(
    expect.arrayContaining(['Engine', 'runc', 'flotilla-image']),
  );
  const info = (await send(engine.socket, 'GET', '/v1.51/info')).json as Record<string, unknown>;
  expect(info).toMatchObject({
    ID: '7a1e3f50-0000-4000-8000-000000000001',
    Driver: 'overlay2',
    LoggingDriver: 'json-file',
    OSType: 'linux',
    ContainerdCommit: { ID: 'c0ffee' },
    RuncCommit: { ID: '1.1.5' },
    InitCommit: { ID: 'de40ad0' },
  });
  expect(info['Warnings']).toContain('from volume');
  const old = (await send(engine.socket, 'GET', '/v1.40/info')).json as Record<string, unknown>;
  expect(old['CgroupVersion']).toBeUndefined();
  expect(old['KernelMemory']).toBe(false);
});

test('credentials are checked by the registry client', async () => {
  expect(await send(engine.socket, 'POST', '/auth', { username: 'u', password: 'right' })).toMatchObject({
    status: 200,
    json: { Status: 'Login Succeeded' },
  });
});

test('several requests share a connection', async () => {
  const raw = new RawConnection(engine.socket);
  raw.write('GET /_ping HTTP/1.1\r\nHost: d\r\n\r\nGET /nothing HTTP/1.1\r\nHost: d\r\n\r\n');
  const text = await raw.until((received) => received.includes('page not found'));
  expect(text.match(/HTTP\/1\.1 /g)).toHaveLength(2);
  raw.close();
});
