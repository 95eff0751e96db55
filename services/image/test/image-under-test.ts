import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ImageConfig, RegistryConfig } from '@flotilla/config';
import { silentLogger } from '@flotilla/log';
import { image } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import type { RunningServer, TypedClient } from '@flotilla/rpc';
import { makeTempDir, waitFor } from '@flotilla/testkit';
import type { TempDir } from '@flotilla/testkit';
import { startImageService } from '../src/index.js';

export type ImageClient = TypedClient<typeof image.ImageServiceService>;

/** The image service in this process and registry-proxy as its own, on a data root in memory. */
export class Engine implements AsyncDisposable {
  readonly root: TempDir;
  client!: ImageClient;
  /** From the next start of the image service on. */
  storageDriver: ImageConfig['image']['storageDriver'];
  #server: RunningServer | undefined;
  #proxy: ChildProcess | undefined;
  #fake: AsyncDisposable | undefined;
  readonly #settings: Partial<RegistryConfig['registry']>;

  private constructor(root: TempDir, settings: Partial<RegistryConfig['registry']>) {
    this.root = root;
    this.#settings = settings;
  }

  static async start(settings: Partial<RegistryConfig['registry']> = {}): Promise<Engine> {
    const engine = new Engine(await makeTempDir('image'), settings);
    await engine.startProxy();
    await engine.startImage();
    return engine;
  }

  /** With something else in registry-proxy's place: `serveProxy` serves it at the address and is disposed at the end. */
  static async startWith(serveProxy: (root: string, socket: string) => Promise<AsyncDisposable>): Promise<Engine> {
    const engine = new Engine(await makeTempDir('image'), {});
    engine.#fake = await serveProxy(engine.root.path, join(engine.root.path, 'registry-proxy.sock'));
    await engine.startImage();
    return engine;
  }

  get imageDir(): string {
    return join(this.root.path, 'image');
  }

  async startProxy(): Promise<void> {
    const socket = join(this.root.path, 'registry-proxy.sock');
    const configPath = join(this.root.path, 'registry-proxy.json');
    const config: RegistryConfig = {
      ...this.#base('registry-proxy', socket),
      registry: {
        insecureRegistries: [],
        mirrors: [],
        certsDir: join(this.root.path, 'certs.d'),
        maxConcurrentDownloads: 3,
        connectTimeoutMs: 2_000,
        headersTimeoutMs: 1_500,
        bodyTimeoutMs: 1_500,
        retryDelayMs: 20,
        maxRetryDelayMs: 100,
        ...this.#settings,
      },
    };
    writeFileSync(configPath, JSON.stringify(config));
    const main = fileURLToPath(new URL('../../registry-proxy/dist/main.js', import.meta.url));
    this.#proxy = spawn(process.execPath, [main, '--config', configPath], { stdio: ['ignore', 'inherit', 'inherit'] });
    await waitFor(() => existsSync(socket), { what: 'the socket of registry-proxy', timeoutMs: 15_000 });
  }

  async killProxy(): Promise<void> {
    const child = this.#proxy;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  #imageConfig(): ImageConfig {
    return {
      ...this.#base('image', join(this.root.path, 'image.sock')),
      image: {
        maxConcurrentDownloads: 3,
        maxConcurrentUploads: 5,
        maxDownloadAttempts: 5,
        storageDriver: this.storageDriver,
      },
    };
  }

  /** The image service as a process of its own, to be killed. */
  async startImageProcess(): Promise<ChildProcess> {
    const configPath = join(this.root.path, 'image.json');
    const socket = join(this.root.path, 'image.sock');
    writeFileSync(configPath, JSON.stringify(this.#imageConfig()));
    await rm(socket, { force: true });
    const main = fileURLToPath(new URL('../dist/main.js', import.meta.url));
    const child = spawn(process.execPath, [main, '--config', configPath], { stdio: ['ignore', 'inherit', 'inherit'] });
    await waitFor(() => existsSync(socket), { what: 'the socket of image', timeoutMs: 15_000 });
    this.client = connect(image.ImageServiceService, `unix:${socket}`, { log: silentLogger() });
    return child;
  }

  async startImage(now = () => new Date()): Promise<void> {
    const config = this.#imageConfig();
    await mkdir(config.dataDir, { recursive: true });
    this.#server = await startImageService(config, { log: silentLogger(), now });
    this.client = connect(image.ImageServiceService, this.#server.address, { log: silentLogger() });
  }

  async stopImage(): Promise<void> {
    this.client.close();
    await this.#server?.[Symbol.asyncDispose]();
    this.#server = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopImage();
    await this.killProxy();
    await this.#fake?.[Symbol.asyncDispose]();
    await this.root[Symbol.asyncDispose]();
  }

  #base<S extends 'image' | 'registry-proxy'>(service: S, socket: string) {
    const root = this.root.path;
    return {
      service,
      version: '0.0.0',
      engineId: 'test',
      dataRoot: root,
      execRoot: root,
      dataDir: join(root, service),
      listen: { kind: 'unix' as const, path: socket },
      services: { 'registry-proxy': `unix:${join(root, 'registry-proxy.sock')}` },
      nats: null,
      log: { level: 'fatal' as const, format: 'text' as const },
    };
  }
}

export interface Pulled {
  readonly lines: image.Progress[];
  readonly revision: bigint;
}

/** Run PullImage (or LoadImages) to its end. */
export async function collect(stream: AsyncIterable<image.PullImageResponse>): Promise<Pulled> {
  const lines: image.Progress[] = [];
  let revision = 0n;
  for await (const message of stream) {
    lines.push(...message.progress);
    if (message.revision > 0n) ({ revision } = message);
  }
  return { lines, revision };
}

export function pull(
  { client }: Engine,
  name: string,
  tag = 'latest',
  options: Partial<image.PullImageRequest> = {},
  signal?: AbortSignal,
): Promise<Pulled> {
  const request = { name, tag, allTags: false, platform: undefined, credentials: undefined, ...options };
  return collect(client.pullImage(request, { signal }));
}

/** Run PushImage to its end; a failure carries the lines before it. */
export async function push(
  { client }: Engine,
  name: string,
  tag = 'latest',
  options: Partial<image.PushImageRequest> = {},
  signal?: AbortSignal,
): Promise<Pulled & { readonly error?: unknown }> {
  const request = { name, tag, platform: undefined, credentials: undefined, ...options };
  const lines: image.Progress[] = [];
  let revision = 0n;
  try {
    for await (const message of client.pushImage(request, { signal })) {
      lines.push(...message.progress);
      if (message.revision > 0n) ({ revision } = message);
    }
    return { lines, revision };
  } catch (error) {
    return { lines, revision, error };
  }
}

/** What the pull printed, without bars. */
export const statuses = ({ lines }: Pulled): string[] =>
  lines.filter(({ hasDetail }) => !hasDetail).map(({ id, status }) => (id === '' ? status : `${id}: ${status}`));

async function* frames(start: image.LoadStart, bytes: Buffer): AsyncGenerator<image.LoadImagesRequest> {
  yield { frame: { $case: 'start', value: start } };
  for (let at = 0; at < bytes.length; at += 200_000) {
    yield { frame: { $case: 'data', value: bytes.subarray(at, at + 200_000) } };
  }
  await Promise.resolve();
}

/** Load an archive; gives the texts that the user sees. */
export async function load(
  { client }: Engine,
  bytes: Buffer,
  start: Partial<image.LoadStart> = {},
  signal?: AbortSignal,
): Promise<string> {
  const stream = client.loadImages(frames({ quiet: false, platforms: [], exchangeName: '', ...start }, bytes), {
    signal,
  });
  const { lines } = await collect(stream);
  return lines.map(({ stream }) => stream).join('');
}

export async function importTar(
  { client }: Engine,
  bytes: Buffer,
  start: Partial<image.ImportStart> = {},
): Promise<image.ImportImageResponse> {
  async function* upload(): AsyncGenerator<image.ImportImageRequest> {
    const value = {
      repository: '',
      tag: '',
      message: '',
      changes: [],
      platform: undefined,
      source: '-',
      exchangeName: '',
      ...start,
    };
    yield { frame: { $case: 'start', value } };
    for (let at = 0; at < bytes.length; at += 200_000) {
      yield { frame: { $case: 'data', value: bytes.subarray(at, at + 200_000) } };
    }
    await Promise.resolve();
  }
  for await (const answer of client.importImage(upload())) return answer;
  throw new Error('no answer');
}

export const call = { deadlineMs: 20_000 };

export function find({ client }: Engine, name: string): Promise<image.Image> {
  return client.getImage({ name, platform: undefined }, call).then(({ image: found }) => {
    if (found === undefined) throw new Error('no image in the answer');
    return found;
  });
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
