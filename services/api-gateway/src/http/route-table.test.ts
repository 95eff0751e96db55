import { expect, test } from 'vitest';
import { RouteTable } from './route-table.js';
import type { Route } from './route-table.js';

const route = (method: Route['method'], path: string): Route => ({ method, path, handler: () => undefined });
const table = new RouteTable([
  route('GET', '/images/json'),
  route('GET', '/images/get'),
  route('GET', '/images/{name...}/json'),
  route('GET', '/images/{name...}/get'),
  route('GET', '/images/{name...}/history'),
  route('POST', '/images/{name...}/tag'),
  route('DELETE', '/images/{name...}'),
  route('GET', '/containers/{id}/json'),
  route('DELETE', '/containers/{id}'),
  route('DELETE', '/containers/{id}/checkpoints/{checkpoint}'),
  route('GET', '/networks'),
  route('GET', '/networks/'),
  route('GET', '/networks/{id}'),
]);
const find = (method: string, path: string): unknown => {
  const match = table.match(method, path);
  return match === undefined ? undefined : [match.route.path, match.params['name'] ?? match.params['id'] ?? ''];
};

test.each([
  ['GET', '/images/json', '/images/json', ''],
  ['GET', '/images/busybox/json', '/images/{name...}/json', 'busybox'],
  ['GET', '/images/127.0.0.1:5000/a/b:1/json', '/images/{name...}/json', '127.0.0.1:5000/a/b:1'],
  ['GET', '/images/a%2Fb@sha256:00/json', '/images/{name...}/json', 'a/b@sha256:00'],
  ['GET', '/images/json/json', '/images/{name...}/json', 'json'],
  ['GET', '/images/a/get', '/images/{name...}/get', 'a'],
  ['POST', '/images/a/b/tag', '/images/{name...}/tag', 'a/b'],
  ['DELETE', '/images/a/b/json', '/images/{name...}', 'a/b/json'],
  ['DELETE', '/containers/x', '/containers/{id}', 'x'],
  ['DELETE', '/containers/x/checkpoints/y', '/containers/{id}/checkpoints/{checkpoint}', 'x'],
  ['GET', '/containers/%2Fweb/json', '/containers/{id}/json', '/web'],
  ['GET', '/networks/', '/networks/', ''],
  ['GET', '/networks/a', '/networks/{id}', 'a'],
])('%s %s is %s', (method, path, expected, name) => {
  expect(find(method, path)).toEqual([expected, name]);
});

test.each([
  ['GET', '/nothing'],
  ['PUT', '/images/json'],
  ['GET', '/images/a%zz/json'],
  ['GET', '/containers/x/y/z/json'],
])('%s %s is nothing', (method, path) => {
  expect(find(method, path)).toBeUndefined();
});

test('long names match', () => {
  expect(find('GET', `/images/${'a/'.repeat(200)}b/json`)).toEqual(['/images/{name...}/json', `${'a/'.repeat(200)}b`]);
});
