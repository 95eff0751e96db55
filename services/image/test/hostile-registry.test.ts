import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { dockerArchive, gzipLayer, imageStoreFaults, makeImage, plainTar } from '@flotilla/testkit';
import type { FixtureImage } from '@flotilla/testkit';
import { Engine, call, load, pull, statuses } from './image-under-test.js';

/** A registry in this process: fast enough for very many requests, and as odd as a test wants. */
let server: Server;
let answer: (path: string, request: IncomingMessage, response: ServerResponse) => void;
let engine: Engine;
const image = makeImage([gzipLayer(plainTar([['f', Buffer.from('x')]]))]);
const address = (): string => `127.0.0.1:${(server.address() as AddressInfo).port}`;

beforeAll(async () => {
  server = createServer((request, response) => answer((request.url ?? '').split('?')[0] ?? '', request, response));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  engine = await Engine.start();
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  answer = (path, _request, response) => serve(image, path, response);
});

function serve(of: FixtureImage, path: string, response: ServerResponse): void {
  const layer = of.layers.find(({ digest }) => path.endsWith(digest));
  if (path === '/v2/') response.end('{}');
  else if (layer !== undefined) response.end(layer.blob);
  else if (path.endsWith(of.id)) response.end(of.configJson);
  else response.writeHead(200, { 'content-type': of.manifestType }).end(of.manifestJson);
}

const removeById = (id: string) =>
  engine.client.removeImage(
    { name: id, force: true, noPrune: false, platforms: [], runningContainerIds: [] },
    { deadlineMs: 60_000 },
  );

it('pulls every tag that a paged list gives', async () => {
  const tags = Array.from({ length: 120 }, (_, at) => `t${at}`);
  answer = (path, request, response) => {
    if (!path.endsWith('/tags/list')) {
      serve(image, path, response);
      return;
    }
    const last = new URL(request.url ?? '', 'http://x').searchParams.get('last');
    const from = last === null ? 0 : tags.indexOf(last) + 1;
    const page = tags.slice(from, from + 50);
    if (from + page.length < tags.length) {
      response.setHeader('link', `</v2/many/tags/list?last=${page.at(-1) ?? ''}&n=50>; rel="next"`);
    }
    response.end(JSON.stringify({ name: 'many', tags: page }));
  };
  const pulled = await pull(engine, `${address()}/many`, '', { allTags: true });
  expect(statuses(pulled).filter((line) => line.startsWith('Status: '))).toHaveLength(120);
  const { images } = await engine.client.listImages({}, call);
  expect(images.map(({ id, repoTags, repoDigests }) => [id, repoTags.length, repoDigests.length])).toEqual([
    [image.id, 120, 1],
  ]);
  await removeById(image.id);
});

it('lists and removes an image of 10,000 tags, and goes on naming it', async () => {
  const names = Array.from({ length: 10_000 }, (_, at) => `many:t${at}`);
  expect((await load(engine, dockerArchive(image, names))).split('\n')).toHaveLength(10_001);
  const { images } = await engine.client.listImages({}, call);
  expect(images.map(({ repoTags }) => repoTags.length)).toEqual([10_000]);
  for (let at = 0; at < 50; at += 1) {
    await engine.client.tagImage({ name: 'many:t0', repository: 'more', tag: `t${at}` }, call);
  }
  expect((await removeById(image.id)).removed).toHaveLength(10_052);
  expect(await imageStoreFaults(engine.client)).toEqual([]);
});

const odd = makeImage(image.layers, { Cmd: ['odd'] });
it.each([
  ['a manifest of 5 MiB', (path: string) => path.includes('/manifests/'), / is larger than 4194304 bytes$/],
  [
    'a configuration that never ends',
    (path: string) => path.endsWith(odd.id),
    /unexpected EOF|verification failed|larger/,
  ],
])('refuses %s', async (_what, isHuge, message) => {
  answer = (path, _request, response) => {
    if (!isHuge(path)) serve(odd, path, response);
    else response.writeHead(200, { 'content-type': image.manifestType }).end(Buffer.alloc(5 << 20, ' '));
  };
  await expect(pull(engine, `${address()}/huge`)).rejects.toMatchObject({
    message: expect.stringMatching(message) as string,
  });
  expect((await engine.client.listImages({}, call)).images).toEqual([]);
  expect(await imageStoreFaults(engine.client)).toEqual([]);
});

it('lets pulls, removals, tags and containers of one image meet in any order', async () => {
  const name = `${address()}/race`;
  const round = async (at: number): Promise<PromiseSettledResult<unknown>[]> => {
    const containerId = at.toString(16).padStart(64, '0');
    const holder = { containerId, containerName: `c${at}` };
    return Promise.allSettled([
      pull(engine, name),
      removeById(image.id),
      engine.client.prepareContainerLayer(
        { holder, image: name, platform: undefined, storageOptions: {}, mountedImages: [] },
        call,
      ),
      engine.client.tagImage({ name, repository: 'raced', tag: `t${at}` }, call),
      engine.client.pruneImages({ dangling: false, until: undefined, labels: [], excludedLabels: [] }, call),
      at % 2 === 0 ? pull(engine, name) : removeById(image.id),
    ]);
  };
  for (let at = 0; at < 25; at += 1) {
    for (const result of await round(at)) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ kind: 'notFound' });
    }
    expect(await imageStoreFaults(engine.client)).toEqual([]);
  }
  await pull(engine, name);
  expect((await engine.client.getImage({ name, platform: undefined }, call)).image?.lowerDirs).toHaveLength(1);
  // What a container was made of stays for it, whatever became of the name.
  for (let at = 0; at < 25; at += 1) {
    await engine.client.releaseContainerLayer({ containerId: at.toString(16).padStart(64, '0') }, call);
  }
  await removeById(image.id);
  expect(await imageStoreFaults(engine.client)).toEqual([]);
});
