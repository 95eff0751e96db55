import { execFileSync } from 'node:child_process';
import { isEngineError } from '@flotilla/errors';
import { dockerArchive, gzipLayer, makeImage, ociArchive, plainTar } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Engine, call, load } from './image-under-test.js';

describe('save', () => {
  let engine: Engine;
  const layer = gzipLayer(plainTar([['f', Buffer.from('content')]]));
  const first = makeImage([layer, layer], { Cmd: ['a'] });
  const second = makeImage([], { Cmd: ['b'] }, 'arm64');
  beforeAll(async () => {
    engine = await Engine.start();
    await load(engine, ociArchive(first, 'docker.io/library/first:1'));
    await engine.client.tagImage({ name: 'first:1', repository: 'first', tag: '2' }, call);
    await load(engine, dockerArchive(second, []));
  });
  afterAll(() => engine[Symbol.asyncDispose]());

  const save = async (names: string[], platforms: { os: string; architecture: string }[] = []): Promise<Buffer> => {
    const wanted = platforms.map((it) => ({ ...it, variant: '', osVersion: '', osFeatures: [] }));
    const chunks: Uint8Array[] = [];
    for await (const { data } of engine.client.saveImages({ names, platforms: wanted, exchangeName: '' }))
      chunks.push(data);
    return Buffer.concat(chunks);
  };
  const read = (archive: Buffer, name: string): unknown =>
    JSON.parse(execFileSync('tar', ['-xOf', '-', name], { input: archive, encoding: 'utf8' }));
  const blob = (digest: string): string => `blobs/sha256/${digest.slice(7)}`;

  it.each([
    ['a tag', ['first:2'], ['first:2']],
    ['a repository: all its tags', ['first'], ['first:1', 'first:2']],
    ['the same twice', ['first:1', 'first:1'], ['first:1']],
    ['an id', [first.id], null],
    ['the start of an id', [first.id.slice(7, 19)], null],
  ])('takes %s', async (_what, names, tags) => {
    const manifest = read(await save(names), 'manifest.json');
    expect(manifest).toEqual([
      { Config: blob(first.id), RepoTags: tags, Layers: [blob(layer.digest), blob(layer.digest)] },
    ]);
  });

  it('writes every blob once, the manifest that came, and the same bytes each time', async () => {
    const archive = await save(['first:1', second.id]);
    expect(await save(['first:1', second.id])).toEqual(archive);
    const names = execFileSync('tar', ['-tf', '-'], { input: archive, encoding: 'utf8' }).trim().split('\n');
    expect(names.slice(0, 6)).toEqual([
      'oci-layout',
      'index.json',
      'manifest.json',
      'repositories',
      'blobs/',
      'blobs/sha256/',
    ]);
    expect(new Set(names).size).toBe(names.length);
    expect(read(archive, 'index.json')).toMatchObject({
      manifests: [
        {
          digest: first.manifestDigest,
          mediaType: first.manifestType,
          annotations: { 'io.containerd.image.name': 'docker.io/library/first:1' },
        },
        { platform: { os: 'linux', architecture: 'arm64' } },
      ],
    });
    expect(read(archive, blob(first.manifestDigest))).toEqual(JSON.parse(first.manifestJson.toString()));
  });

  it('says what is missing before anything is sent', async () => {
    await expect(save(['first:1', 'absent'])).rejects.toThrow('No such image: absent');
    await expect(save([])).rejects.toSatisfy((error) => isEngineError(error, 'invalidArgument'));
    const arm = [{ os: 'linux', architecture: 'arm64' }];
    await expect(save(['first:1'], arm)).rejects.toSatisfy((error) => isEngineError(error, 'notFound'));
    await expect(save([second.id], arm)).resolves.toBeInstanceOf(Buffer);
  });

  it('goes on while the image is removed', async () => {
    const stream = engine.client
      .saveImages({ names: ['first:1'], platforms: [], exchangeName: '' })
      [Symbol.asyncIterator]();
    const chunks = [(await stream.next()).value?.data ?? Buffer.alloc(0)];
    await engine.client.removeImage(
      { name: first.id, force: true, noPrune: false, platforms: [], runningContainerIds: [] },
      call,
    );
    for (let next = await stream.next(); next.done !== true; next = await stream.next()) chunks.push(next.value.data);
    expect(await load(engine, Buffer.concat(chunks))).toBe('Loaded image: first:1\n');
  });
});
