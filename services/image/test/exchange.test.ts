import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { image as proto } from '@flotilla/proto';
import { ExchangeFifo, FifoReader, writeFifo } from '@flotilla/sys';
import { dockerArchive, gzipLayer, makeImage, ociArchive, plainTar, waitFor } from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Engine, call, collect, find, importTar, load } from './image-under-test.js';

const { ExchangeUse } = proto;
const never = new AbortController().signal;
const noFrame: Promise<proto.UploadEnd | undefined> = Promise.resolve(undefined);

/** What the gateway does: bytes into a FIFO, the rest in the call. */
class Upload implements Disposable {
  readonly #fifo: ExchangeFifo;
  readonly uses: proto.ExchangeUse[] = [];
  /** Whether the image service has opened its end. */
  readonly answered: Promise<proto.ExchangeUse>;
  #answer!: (use: proto.ExchangeUse) => void;

  constructor(exchangeDir: string) {
    const fifo = ExchangeFifo.make(exchangeDir, 'write');
    if (fifo === undefined) throw new Error('no FIFO');
    this.#fifo = fifo;
    this.answered = new Promise((resolve) => (this.#answer = resolve));
  }

  get exchangeName(): string {
    return this.#fifo.name;
  }

  async write(source: AsyncIterable<Buffer>): Promise<proto.UploadEnd | undefined> {
    expect(await this.answered).toBe(ExchangeUse.TAKEN);
    const size = await writeFifo(this.#fifo.take(), source, never);
    return size === undefined ? undefined : { sizeBytes: BigInt(size) };
  }

  async *answers<A extends { readonly exchange: proto.ExchangeUse }>(answers: AsyncIterable<A>): AsyncGenerator<A> {
    for await (const answer of answers) {
      if (answer.exchange === ExchangeUse.UNSPECIFIED) yield answer;
      else this.#answer(answer.exchange);
    }
  }

  [Symbol.dispose](): void {
    this.#fifo[Symbol.dispose]();
  }
}

describe('archives through a FIFO in the exchange directory', () => {
  let engine: Engine;
  const large = gzipLayer(
    plainTar([
      ['first', Buffer.from('1')],
      ['random', randomBytes(9_000_000)],
    ]),
  );
  const small = gzipLayer(plainTar([['small', Buffer.from('2')]]));
  const image = makeImage([large, small], { Cmd: ['a'] });
  const archive = dockerArchive(image, ['web:1']);
  /** A large tar that turns into something else in the middle. */
  const broken = Buffer.concat([large.tar.subarray(0, 2048), randomBytes(9_000_000)]);
  const withoutEnd = (tar: Buffer): Buffer => tar.subarray(0, 512 * Math.ceil(1 + broken.length / 512));

  beforeAll(async () => {
    engine = await Engine.start();
  });
  afterAll(() => engine[Symbol.asyncDispose]());
  const openFifos = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).includes('/exchange/fifo-');
      } catch {
        return false; // that of the directory itself
      }
    }).length;
  afterEach(async () => {
    for (const { id } of (await engine.client.listImages({}, call)).images) {
      const request = { name: id, force: true, noPrune: false, platforms: [], runningContainerIds: [] };
      await engine.client.removeImage(request, call);
    }
    // What was removed goes a little later.
    await expect.poll(leftovers, { interval: 5, timeout: 15_000 }).toEqual([]);
    await expect.poll(openFifos, { interval: 5, timeout: 15_000 }).toBe(0);
  });

  const exchangeDir = (): string => join(engine.root.path, 'exchange');
  const leftovers = (): string[] =>
    [join(engine.imageDir, 'layers'), join(engine.imageDir, 'incoming'), exchangeDir()].flatMap((directory) =>
      readdirSync(directory),
    );
  const arriving = (): boolean =>
    readdirSync(join(engine.imageDir, 'layers')).some(
      (name) => name.startsWith('.tmp-') && existsSync(join(engine.imageDir, 'layers', name, 'diff/first')),
    );

  /** Load; `ending` sees what was written and makes the frame that follows, if any. */
  async function loadThrough(
    source: AsyncIterable<Buffer>,
    ending: (end: proto.UploadEnd | undefined) => Promise<proto.UploadEnd | undefined> = (end) => Promise.resolve(end),
    signal?: AbortSignal,
  ): Promise<string> {
    using upload = new Upload(exchangeDir());
    async function* requests(): AsyncGenerator<proto.LoadImagesRequest> {
      const value = { quiet: true, platforms: [], exchangeName: upload.exchangeName };
      yield { frame: { $case: 'start', value } };
      const end = await ending(await upload.write(source));
      if (end !== undefined) yield { frame: { $case: 'end', value: end } };
    }
    const { lines } = await collect(upload.answers(engine.client.loadImages(requests(), { signal })));
    return lines.map(({ stream }) => stream).join('');
  }
  async function* inParts(
    bytes: Buffer,
    then: () => Promise<unknown> = () => Promise.resolve(),
  ): AsyncGenerator<Buffer> {
    yield bytes.subarray(0, bytes.length / 2);
    await then();
    for (let at = bytes.length / 2; at < bytes.length; at += 100_001) yield bytes.subarray(at, at + 100_001);
  }

  it('load, large layers unpacked while they come and small ones', async () => {
    const text = await loadThrough(inParts(archive, () => waitFor(arriving, { what: 'the first file' })));
    expect(text).toBe('Loaded image: web:1\n');
    const { lowerDirs, layers } = await find(engine, 'web:1');
    expect(layers).toEqual([large.diffId, small.diffId]);
    expect(readFileSync(join(lowerDirs[1] ?? '', 'random'))).toHaveLength(9_000_000);
    expect(readFileSync(join(lowerDirs[0] ?? '', 'small'), 'utf8')).toBe('2');
    // Again: what is there is not unpacked again.
    expect(await loadThrough(inParts(archive))).toBe('Loaded image: web:1\n');
  });

  it('load, compressed in every place', async () => {
    const { blob } = gzipLayer(ociArchive(image, 'docker.io/library/oci:1'));
    expect(await loadThrough(inParts(blob))).toBe('Loaded image: oci:1\n');
    expect((await find(engine, 'oci:1')).descriptor?.digest).toBe(image.manifestDigest);
    expect(await loadThrough(inParts(gzipLayer(archive).blob))).toBe('Loaded image: web:1\n');
  });

  it('load as through the call, when the FIFO is not there', async () => {
    async function* requests(use: Promise<proto.ExchangeUse>): AsyncGenerator<proto.LoadImagesRequest> {
      const exchangeName = `fifo-${crypto.randomUUID()}`;
      yield { frame: { $case: 'start', value: { quiet: true, platforms: [], exchangeName } } };
      expect(await use).toBe(ExchangeUse.DECLINED);
      yield { frame: { $case: 'data', value: archive } };
    }
    let answer = (_: proto.ExchangeUse): void => undefined;
    const answers = engine.client.loadImages(requests(new Promise((resolve) => (answer = resolve))));
    for await (const { exchange } of answers) if (exchange !== ExchangeUse.UNSPECIFIED) answer(exchange);
    expect((await find(engine, 'web:1')).layers).toHaveLength(2);
  });

  it('are refused only if an image has the bad layer, and what follows it is read', async () => {
    const manifest = JSON.stringify([{ Config: 'c', Layers: ['l', 's'] }]);
    const bad = plainTar([
      ['l', broken],
      ['s', small.tar],
      ['c', image.configJson],
      ['manifest.json', Buffer.from(manifest)],
    ]);
    await expect(loadThrough(inParts(bad))).rejects.toMatchObject({
      message: expect.stringMatching(/^failed to register layer: /) as string,
    });
    const unused = withoutEnd(plainTar([['unused.tar', broken]]));
    expect(await loadThrough(inParts(Buffer.concat([unused, archive])))).toBe('Loaded image: web:1\n');
  });

  it.each([1_000, 5_000_000])('are refused when they are cut after %i bytes', async (bytes) => {
    await expect(loadThrough(inParts(archive.subarray(0, bytes)))).rejects.toMatchObject({ kind: 'dataLoss' });
  });

  it.each(['is not told', 'is wrong'])('are not loaded when their size %s', async (what) => {
    const ending = what === 'is wrong' ? () => Promise.resolve({ sizeBytes: 1n }) : () => noFrame;
    const kind = what === 'is wrong' ? 'dataLoss' : 'cancelled';
    await expect(loadThrough(inParts(archive), ending)).rejects.toMatchObject({ kind });
    expect((await engine.client.listImages({}, call)).images).toEqual([]);
  });

  it('say that they end in the middle of a layer', async () => {
    const cut = archive.subarray(0, archive.indexOf(large.tar) + 5_000_000);
    await expect(loadThrough(inParts(cut))).rejects.toMatchObject({
      kind: 'dataLoss',
      message: 'invalid archive: unexpected end of data',
    });
  });

  it('leave nothing when the client goes away while a layer comes', async () => {
    const stop = new AbortController();
    const source = inParts(archive, async () => {
      await waitFor(arriving, { what: 'the first file' });
      stop.abort();
      // The FIFO stays open and nothing more comes: the call alone tells.
      await waitFor(() => !arriving(), { what: 'the end of the unpacking' });
    });
    await expect(loadThrough(source, undefined, stop.signal)).rejects.toMatchObject({ kind: 'cancelled' });
  });

  it('leave nothing when the image service stops while a layer comes', async () => {
    let restarted = Promise.resolve();
    const source = inParts(archive, async () => {
      await waitFor(arriving, { what: 'the first file' });
      restarted = engine.stopImage().then(() => engine.startImage());
      await restarted;
    });
    await expect(loadThrough(source)).rejects.toMatchObject({ kind: 'unavailable' });
    await restarted;
  });

  it('import what has no or few bytes', async () => {
    const importThrough = async (bytes: Buffer): Promise<string> => {
      using upload = new Upload(exchangeDir());
      async function* requests(): AsyncGenerator<proto.ImportImageRequest> {
        const names = { repository: '', tag: '', message: '', changes: [], platform: undefined, source: '-' };
        yield { frame: { $case: 'start', value: { ...names, exchangeName: upload.exchangeName } } };
        const end = await upload.write(Readable.from(bytes.length === 0 ? [] : [bytes]));
        if (end !== undefined) yield { frame: { $case: 'end', value: end } };
      }
      const answers = upload.answers(engine.client.importImage(requests(), call));
      for await (const { imageId } of answers) return imageId;
      throw new Error('no answer');
    };
    const empty = Buffer.alloc(0);
    expect((await find(engine, await importThrough(empty))).layers).toEqual([
      `sha256:${createHash('sha256').digest('hex')}`,
    ]);
    for (const bytes of [Buffer.from('a'), Buffer.from('abcdef')])
      await expect(importThrough(bytes)).rejects.toMatchObject({ message: /unexpected EOF/ });
  });

  it('import, and clients that send nothing keep nobody waiting', async () => {
    const stop = new AbortController();
    const begin = (): { upload: Upload; ended: Promise<unknown> } => {
      const upload = new Upload(exchangeDir());
      async function* requests(): AsyncGenerator<proto.ImportImageRequest> {
        const names = { repository: '', tag: '', message: '', changes: [], platform: undefined, source: '-' };
        yield { frame: { $case: 'start', value: { ...names, exchangeName: upload.exchangeName } } };
        await new Promise(() => undefined);
      }
      const answers = upload.answers(engine.client.importImage(requests(), { signal: stop.signal }));
      return { upload, ended: expect(answers.next()).rejects.toMatchObject({ kind: 'cancelled' }) };
    };
    const idle = Array.from({ length: 6 }, begin);
    for (const { upload } of idle) expect(await upload.answered).toBe(ExchangeUse.TAKEN);
    const { imageId } = await importTar(engine, large.tar, { repository: 'imported' });
    expect(await load(engine, archive)).toMatch('Loaded image: web:1\n');
    expect((await find(engine, 'imported')).id).toBe(imageId);
    stop.abort();
    for (const { upload, ended } of idle) {
      await ended;
      upload[Symbol.dispose]();
    }
  });

  async function savedThrough(exchangeName: string, fifo?: ExchangeFifo): Promise<Buffer> {
    const chunks: Uint8Array[] = [];
    let size = -1n;
    for await (const message of engine.client.saveImages({ names: ['web:1'], platforms: [], exchangeName })) {
      if (message.exchange === ExchangeUse.TAKEN && fifo !== undefined) {
        for await (const chunk of new FifoReader(fifo.take(), never)) chunks.push(chunk);
      }
      chunks.push(message.data);
      if (message.sizeBytes > 0n) size = message.sizeBytes;
    }
    const bytes = Buffer.concat(chunks);
    expect(size).toBe(fifo === undefined ? -1n : BigInt(bytes.length));
    return bytes;
  }

  it('save the same bytes as the call brings, if the FIFO is there', async () => {
    await load(engine, archive);
    const bytes = await savedThrough('');
    expect(bytes.length).toBeGreaterThan(9_000_000);
    using fifo = ExchangeFifo.make(exchangeDir(), 'read');
    expect((await savedThrough(fifo?.name ?? '', fifo)).equals(bytes)).toBe(true);
    expect((await savedThrough(`fifo-${crypto.randomUUID()}`)).equals(bytes)).toBe(true);
  });

  it('save says what is missing before the FIFO is opened, and ends with its reader', async () => {
    using unused = ExchangeFifo.make(exchangeDir(), 'read');
    const request = { platforms: [], exchangeName: unused?.name ?? '' };
    await expect(engine.client.saveImages({ names: ['absent'], ...request }).next()).rejects.toThrow('No such image');
    await load(engine, archive);
    {
      using fifo = ExchangeFifo.make(exchangeDir(), 'read');
      const messages = engine.client.saveImages({ names: ['web:1'], platforms: [], exchangeName: fifo?.name ?? '' });
      expect((await messages.next()).value).toMatchObject({ exchange: ExchangeUse.TAKEN });
      // The reader's death, while the call still stands.
      fifo?.[Symbol.dispose]();
      await expect(messages.next()).rejects.toMatchObject({
        kind: expect.stringMatching(/cancelled|unavailable/) as string,
      });
    }
    const stop = new AbortController();
    using other = ExchangeFifo.make(exchangeDir(), 'read');
    const left = engine.client.saveImages(
      { names: ['web:1'], platforms: [], exchangeName: other?.name ?? '' },
      { signal: stop.signal },
    );
    await left.next();
    stop.abort();
    await expect(left.next()).rejects.toMatchObject({ kind: 'cancelled' });
  });
});

it('an image service killed while a layer comes through a FIFO leaves nothing, and the same load then succeeds', async () => {
  await using engine = await Engine.start();
  await engine.stopImage();
  const layer = gzipLayer(
    plainTar([
      ['first', Buffer.from('1')],
      ['random', randomBytes(9_000_000)],
    ]),
  );
  const archive = dockerArchive(makeImage([layer]), ['web:1']);
  const child = await engine.startImageProcess();
  const exchangeDir = join(engine.root.path, 'exchange');
  await mkdir(exchangeDir, { recursive: true });
  const layersDir = join(engine.imageDir, 'layers');
  using upload = new Upload(exchangeDir);
  let written: proto.UploadEnd | undefined = { sizeBytes: 0n };
  async function* source(): AsyncGenerator<Buffer> {
    yield archive.subarray(0, archive.length / 2);
    await waitFor(() => readdirSync(layersDir).some((name) => existsSync(join(layersDir, name, 'diff/first'))), {
      what: 'the first file',
    });
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
    yield archive.subarray(archive.length / 2);
  }
  async function* requests(): AsyncGenerator<proto.LoadImagesRequest> {
    yield { frame: { $case: 'start', value: { quiet: true, platforms: [], exchangeName: upload.exchangeName } } };
    written = await upload.write(source());
  }
  await expect(collect(upload.answers(engine.client.loadImages(requests())))).rejects.toMatchObject({
    kind: 'unavailable',
  });
  // The writer hears of it from the kernel.
  await expect.poll(() => written, { timeout: 15_000 }).toBeUndefined();
  engine.client.close();
  await engine.startImage();
  await expect.poll(() => readdirSync(layersDir), { timeout: 15_000 }).toEqual([]);
  expect(readdirSync(join(engine.imageDir, 'incoming'))).toEqual([]);
  expect(readdirSync(exchangeDir)).toEqual([]);
  expect(await load(engine, archive, { quiet: true })).toBe('Loaded image: web:1\n');
});
