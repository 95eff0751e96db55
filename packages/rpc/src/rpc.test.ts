import { execFileSync } from 'node:child_process';
import { once, setMaxListeners } from 'node:events';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  EngineError,
  cancelled,
  conflict,
  dataLoss,
  errorKinds,
  internal,
  isEngineError,
  messageOf,
  notFound,
  unavailable,
} from '@flotilla/errors';
import { createLogger, silentLogger } from '@flotilla/log';
import { config, rpcHealth, rpcReflection } from '@flotilla/proto';
import { HealthControl, bidi, clientStream, connect, serve, serverStream, serviceEntry, unary } from './index.js';
import type { CallContext, Implementation, RunningServer, ServeOptions, TypedClient } from './index.js';
import { NoteService } from './test-service.js';
import type { Note } from './test-service.js';

const log = silentLogger();
let dir: string;
let socket: string;
const disposables: AsyncDisposable[] = [];
const clients: { close(): void }[] = [];

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'flotilla-rpc-'));
  socket = join(dir, 'run/note.sock');
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  for (const each of disposables.splice(0)) await each[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

async function start(
  handlers: Implementation<typeof NoteService>,
  options: Partial<ServeOptions> = {},
): Promise<RunningServer> {
  const server = await serve({
    listen: { kind: 'unix', path: socket },
    services: [serviceEntry(NoteService, handlers)],
    log,
    service: 'note',
    version: '1.2.3',
    ...options,
  });
  disposables.push(server);
  return server;
}

function client(options: Partial<Parameters<typeof connect>[2]> = {}): TypedClient<typeof NoteService> {
  const made = connect(NoteService, `unix:${socket}`, { log, ...options });
  clients.push(made);
  return made;
}

const call = { deadlineMs: 5000 };
// eslint-disable-next-line @typescript-eslint/require-await -- an async source is what the API takes
async function* notes(...texts: string[]): AsyncGenerator<Note> {
  for (const text of texts) yield { text };
}

async function failureOf(promise: Promise<unknown>): Promise<EngineError> {
  try {
    await promise;
  } catch (error) {
    if (isEngineError(error)) return error;
    throw error;
  }
  throw new Error('did not fail');
}

async function collect(messages: AsyncIterable<Note>): Promise<string[]> {
  const texts: string[] = [];
  for await (const { text } of messages) texts.push(text);
  return texts;
}

function deferred<T>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => (resolve = settle));
  return { promise, resolve };
}

describe('the four forms of calls', () => {
  it('answer', async () => {
    await start({
      one: unary(({ text }) => Promise.resolve({ text: text.toUpperCase() })),
      many: serverStream(({ text }) => notes(...text.split(' '))),
      collect: clientStream(async (requests) => ({ text: (await collect(requests)).join('') })),
      chat: bidi(async function* (requests) {
        for await (const { text } of requests) yield { text: `${text}!` };
        yield { text: 'bye' };
      }),
    });
    const { one, many, collect: collectCall, chat } = client();
    expect(await one({ text: 'hej' }, call)).toEqual({ text: 'HEJ' });
    expect(await collect(many({ text: 'a b c' }))).toEqual(['a', 'b', 'c']);
    expect(await collectCall(notes('x', 'y'))).toEqual({ text: 'xy' });
    expect(await collect(chat(notes('a', 'b')))).toEqual(['a!', 'b!', 'bye']);
  });

  it('a method without a handler is unimplemented', async () => {
    await start({});
    const error = await failureOf(client().one({ text: '' }, call));
    expect(error.kind).toBe('unimplemented');
  });

  it('requests may be left early while answers go on', async () => {
    await start({
      chat: bidi(async function* (requests) {
        for await (const { text } of requests) {
          yield { text };
          break;
        }
        await delay(20);
        yield { text: 'still here' };
      }),
    });
    async function* endless() {
      for (;;) {
        yield { text: 'x' };
        await delay(5);
      }
    }
    expect(await collect(client().chat(endless()))).toEqual(['x', 'still here']);
  });
});

describe('errors', () => {
  it.each(errorKinds)('%s walks both ways', async (kind) => {
    const thrown = new EngineError(kind, `said: ${kind} – ünï`, { details: { volume: 'data' } });
    await start({
      one: unary(() => Promise.reject(thrown)),
      // eslint-disable-next-line @typescript-eslint/require-await -- a stream that only fails
      many: serverStream(async function* () {
        yield { text: 'first' };
        throw thrown;
      }),
      collect: clientStream(() => Promise.reject(thrown)),
    });
    const { one, many, collect: collectCall } = client();
    for (const error of [
      await failureOf(one({ text: '' }, call)),
      await failureOf(collect(many({ text: '' }))),
      await failureOf(collectCall(notes('a'))),
    ]) {
      expect(error.kind).toBe(kind);
      expect(error.message).toBe(thrown.message);
      expect(error.details).toEqual({ volume: 'data' });
    }
  });

  it('a bug is told as internal error without its text', async () => {
    await start({ one: unary(() => Promise.reject(new TypeError('secret path /x'))) });
    const error = await failureOf(client().one({ text: '' }, call));
    expect([error.kind, error.message]).toEqual(['internal', 'internal error']);
  });

  it('only a fault of the engine is an error in the log, and has a stack there', async () => {
    const lines: string[] = [];
    const destination = { write: (line: string) => lines.push(line) };
    let thrown: unknown;
    await start(
      { one: unary(() => Promise.reject(thrown as Error)) },
      { log: createLogger({ service: 'note', level: 'info', format: 'text', destination }) },
    );
    const logged = async (error: Error): Promise<string> => {
      thrown = error;
      lines.length = 0;
      await failureOf(client().one({ text: '' }, call));
      return lines.join('');
    };
    for (const error of [new TypeError('bug'), internal('no firewall')]) {
      expect(await logged(error)).toMatch(new RegExp(` ERROR note: call failed[^]*${error.message}[^]*\\n    at `));
    }
    const told = await failureOf(client().one({ text: '' }, call));
    expect(told.isOutside).toBe(true);
    for (const error of [
      told,
      internal('wrapped', { cause: told }),
      internal('registry gone', { isOutside: true }),
      dataLoss('no tar'),
    ]) {
      const line = await logged(error);
      expect(line).toContain(` INFO  note: call failed`);
      expect(line).toContain(messageOf(error));
      expect(line.trimEnd()).not.toContain('\n');
    }
    expect(await logged(notFound('no note'))).toBe('');
  });

  it('a synchronous throw of a handler is an answer too', async () => {
    await start({
      one: unary(() => {
        throw notFound('no note');
      }),
      many: serverStream(() => {
        throw conflict('busy');
      }),
    });
    expect((await failureOf(client().one({ text: '' }, call))).kind).toBe('notFound');
    expect((await failureOf(collect(client().many({ text: '' })))).kind).toBe('conflict');
  });

  it('unavailable said by the service is not retried', async () => {
    let calls = 0;
    await start({
      one: unary(() => {
        calls += 1;
        return Promise.reject(unavailable('registry is down'));
      }),
    });
    expect((await failureOf(client().one({ text: '' }, call))).message).toBe('registry is down');
    expect(calls).toBe(1);
  });
});

describe('deadlines and cancellation', () => {
  it('a deadline names the call and its limit, and the handler hears of it', async () => {
    const aborted = deferred<unknown>();
    await start({
      one: unary(async (_request, { signal }) => {
        await once(signal, 'abort');
        aborted.resolve(signal.reason);
        throw signal.reason;
      }),
    });
    const error = await failureOf(client().one({ text: '' }, { deadlineMs: 50 }));
    expect([error.kind, error.message]).toEqual(['deadlineExceeded', 'NoteService.One did not answer within 50 ms']);
    expect(isEngineError(await aborted.promise, 'cancelled')).toBe(true);
  });

  it('the caller cancels a unary call', async () => {
    const aborted = deferred<undefined>();
    await start({
      one: unary(async (_request, { signal }) => {
        await once(signal, 'abort');
        aborted.resolve(undefined);
        throw signal.reason;
      }),
    });
    const stop = new AbortController();
    const running = failureOf(client().one({ text: '' }, { ...call, signal: stop.signal }));
    await delay(30);
    stop.abort();
    expect((await running).kind).toBe('cancelled');
    await aborted.promise;
  });

  it('leaving a server stream ends the handler and runs its finally', async () => {
    const ended = deferred<boolean>();
    await start({
      many: serverStream(async function* (_request, { signal }) {
        try {
          for (;;) {
            yield { text: 'tick' };
            await delay(5, undefined, { signal });
          }
        } finally {
          ended.resolve(signal.aborted);
        }
      }),
    });
    for await (const _ of client().many({ text: '' })) break;
    expect(await ended.promise).toBe(true);
  });

  it('a client stream whose caller goes away throws in the handler, never looks ended', async () => {
    const seen = deferred<unknown>();
    await start({
      collect: clientStream(async (requests) => {
        try {
          await collect(requests);
          seen.resolve('ended');
        } catch (error) {
          seen.resolve(error);
        }
        return { text: '' };
      }),
    });
    async function* failing() {
      yield { text: 'a' };
      await delay(30);
      throw new Error('disk gone');
    }
    await expect(client().collect(failing())).rejects.toThrow('disk gone');
    expect(await seen.promise).toMatchObject({ kind: 'cancelled' });
  });

  it('a bidi call is cancelled by its signal', async () => {
    const ended = deferred<undefined>();
    await start({
      chat: bidi(async function* (requests) {
        try {
          for await (const note of requests) yield note;
        } finally {
          ended.resolve(undefined);
        }
      }),
    });
    const stop = new AbortController();
    const hold = new Promise<never>(() => undefined);
    async function* open() {
      yield { text: 'a' };
      await hold;
    }
    const messages = client().chat(open(), { signal: stop.signal });
    expect((await messages.next()).value).toEqual({ text: 'a' });
    stop.abort();
    expect((await failureOf(messages.next())).kind).toBe('cancelled');
    await ended.promise;
  });
});

describe('backpressure', () => {
  const big = 'x'.repeat(64 * 1024);

  it('a server stream waits for a slow reader', async () => {
    let produced = 0;
    await start({
      // eslint-disable-next-line @typescript-eslint/require-await -- produces as fast as it is asked
      many: serverStream(async function* () {
        for (; produced < 2000; produced += 1) yield { text: big };
      }),
    });
    const messages = client().many({ text: '' });
    await messages.next();
    await delay(200);
    expect(produced).toBeLessThan(200);
    let read = 1;
    for await (const _ of messages) read += 1;
    expect(read).toBe(2000);
  });

  it('goes on when hundreds of streams are given up while much is under way', async () => {
    let go = deferred<undefined>();
    await start({
      many: serverStream(async function* () {
        yield { text: 'begun' };
        await go.promise;
        for (;;) yield { text: big.slice(0, 4096) };
      }),
      one: unary(({ text }) => Promise.resolve({ text })),
    });
    const caller = client();
    for (let round = 0; round < 4; round += 1) {
      const stop = new AbortController();
      setMaxListeners(0, stop.signal);
      const streams = Array.from({ length: 400 }, () => caller.many({ text: '' }, { signal: stop.signal }));
      await Promise.all(streams.map((stream) => stream.next()));
      go.resolve(undefined);
      await nextTurn();
      stop.abort();
      expect(await caller.one({ text: String(round) }, call)).toEqual({ text: String(round) });
      await Promise.allSettled(streams.map((stream) => stream.next()));
      go = deferred();
    }
  });

  it('a client stream waits for a slow handler', async () => {
    let produced = 0;
    const go = deferred<undefined>();
    await start({
      collect: clientStream(async (requests) => {
        let count = 0;
        for await (const _ of requests) {
          if (count === 0) await go.promise;
          count += 1;
        }
        return { text: String(count) };
      }),
    });
    // eslint-disable-next-line @typescript-eslint/require-await -- produces as fast as it is asked
    async function* source() {
      for (; produced < 1000; produced += 1) yield { text: big };
    }
    const answer = client().collect(source());
    await delay(200);
    expect(produced).toBeLessThan(200);
    go.resolve(undefined);
    expect(await answer).toEqual({ text: '1000' });
  });
});

describe('availability', () => {
  it('a unary call waits for a service that is down, with one request id', async () => {
    const ids: string[] = [];
    const running = client().one({ text: 'a' }, { ...call, requestId: 'r1' });
    await delay(150);
    await start({
      one: unary((request, { requestId }) => {
        ids.push(requestId);
        return Promise.resolve(request);
      }),
    });
    expect(await running).toEqual({ text: 'a' });
    expect(ids).toEqual(['r1']);
  });

  it('streams wait too', async () => {
    const made = client();
    const running = Promise.all([
      collect(made.many({ text: 'a b' })),
      made.collect(notes('c')),
      collect(made.chat(notes('d'))),
    ]);
    await delay(100);
    await start({
      many: serverStream(({ text }) => notes(...text.split(' '))),
      collect: clientStream(async (requests) => ({ text: (await collect(requests)).join('') })),
      chat: bidi((requests) => requests),
    });
    expect(await running).toEqual([['a', 'b'], { text: 'c' }, ['d']]);
  });

  it('a stream that may be repeated begins anew when the service goes away, as often as allowed', async () => {
    const ids: string[] = [];
    const handlers: Implementation<typeof NoteService> = {
      many: serverStream(async function* ({ text }, { requestId, signal }) {
        ids.push(requestId);
        yield { text };
        if (ids.length !== 2) await once(signal, 'abort');
      }),
    };
    const stream = async (repeats: number): Promise<string[]> => {
      const server = await start(handlers);
      const texts: string[] = [];
      for await (const { text } of client().many({ text: 'a' }, { requestId: 'r1', repeats })) {
        texts.push(text);
        if (texts.length > 1) continue;
        await server[Symbol.asyncDispose]();
        await start(handlers);
      }
      return texts;
    };
    expect(await stream(1)).toEqual(['a', 'a']);
    expect(ids).toEqual(['r1', 'r1']);
    for (const each of disposables.splice(0)) await each[Symbol.asyncDispose]();
    expect((await failureOf(stream(0))).kind).toBe('unavailable');
  });

  it('gives up after retryUnavailableMs', async () => {
    const error = await failureOf(client().one({ text: '' }, { ...call, retryUnavailableMs: 100 }));
    expect([error.kind, error.message]).toEqual(['unavailable', 'the note service is not available']);
    const failed = await failureOf(collect(client().chat(notes('a'), { retryUnavailableMs: 0 })));
    expect(failed.kind).toBe('unavailable');
  });

  it('a repeated request id gets the kept reply, and joins a call in flight', async () => {
    const kept = new Map<string, Uint8Array>();
    let runs = 0;
    await start(
      {
        one: unary(
          async ({ text }, { requestId }) => {
            runs += 1;
            await delay(30);
            kept.set(requestId, Buffer.from(JSON.stringify({ text: `made ${text}` })));
            return { text: `made ${text}` };
          },
          { idempotent: true },
        ),
      },
      { replies: { get: (id) => Promise.resolve(kept.get(id)) } },
    );
    const { one } = client();
    const same = { ...call, requestId: 'same' };
    const answers = await Promise.all([one({ text: 'a' }, same), one({ text: 'a' }, same)]);
    answers.push(await one({ text: 'a' }, same));
    expect(answers).toEqual(Array(3).fill({ text: 'made a' }));
    expect(runs).toBe(1);
  });

  it('a joined call goes on when the first caller goes away', async () => {
    let runs = 0;
    await start({
      one: unary(
        async (request, { signal }) => {
          runs += 1;
          await delay(runs === 1 ? 60_000 : 1, undefined, { signal }).catch(() => {
            throw cancelled('gone');
          });
          return request;
        },
        { idempotent: true },
      ),
    });
    const { one } = client();
    const stop = new AbortController();
    const first = failureOf(one({ text: 'a' }, { ...call, requestId: 'x', signal: stop.signal }));
    await delay(30);
    const second = one({ text: 'a' }, { ...call, requestId: 'x' });
    await delay(30);
    stop.abort();
    expect((await first).kind).toBe('cancelled');
    expect(await second).toEqual({ text: 'a' });
    expect(runs).toBe(2);
  });

  it('draining lets unary calls end and ends streams as unavailable', async () => {
    const server = await start({
      one: unary(async (request) => {
        await delay(150);
        return request;
      }),
      many: serverStream(async function* (_request, { signal }) {
        yield { text: 'a' };
        await once(signal, 'abort');
      }),
    });
    const made = client();
    const stream = made.many({ text: '' });
    await stream.next();
    const rest = failureOf(stream.next());
    const running = made.one({ text: 'kept' }, call);
    await delay(30);
    await server[Symbol.asyncDispose]();
    expect(await running).toEqual({ text: 'kept' });
    expect((await rest).kind).toBe('unavailable');
    await expect(stat(socket)).rejects.toThrow('ENOENT');
  });
});

describe('metadata', () => {
  it('carries identity and request id, and moves both clocks', async () => {
    const observed: string[] = [];
    const clock = (name: string, now: bigint) => ({
      now: () => now,
      observe: (remote: bigint) => void observed.push(`${name} saw ${remote}`),
    });
    let context: CallContext | undefined;
    await start(
      {
        one: unary((request, given) => {
          context = given;
          return Promise.resolve(request);
        }),
      },
      { clock: clock('server', 7n) },
    );
    const identity = { name: 'ann', visibility: { team: 'blue' } };
    await client({ clock: clock('client', 5n) }).one({ text: '' }, { ...call, requestId: 'id-1', identity });
    expect(context?.requestId).toBe('id-1');
    expect(context?.identity).toEqual(identity);
    expect(observed).toEqual(['server saw 5', 'client saw 7']);
  });
});

describe('the server', () => {
  it('serves health with changes, service info, metrics and reflection', async () => {
    const health = new HealthControl({ serving: false });
    await start(
      { one: unary((request) => Promise.resolve(request)) },
      { health, descriptorSet: join(dir, 'none.binpb') },
    );
    const checks = connect(rpcHealth.HealthService, `unix:${socket}`, { log });
    const info = connect(config.ConfigServiceService, `unix:${socket}`, { log });
    clients.push(checks, info);
    expect((await checks.check({ service: '' }, call)).status).toBe(2);
    const watch = checks.watch({ service: '' });
    expect((await watch.next()).value?.status).toBe(2);
    health.setServing(true);
    expect((await watch.next()).value?.status).toBe(1);
    await watch.return();
    expect(await info.getServiceInfo({}, call)).toMatchObject({ service: 'note', version: '1.2.3', pid: process.pid });
    await client().one({ text: '' }, call);
    expect((await info.getMetrics({}, call)).text).toContain(
      'method="/flotilla.note.v1.NoteService/One",outcome="OK"} 1',
    );
  });

  it('makes its socket private and takes the place of a dead one', async () => {
    const first = await start({});
    expect((await stat(socket)).mode & 0o777).toBe(0o600);
    expect((await stat(join(dir, 'run'))).mode & 0o777).toBe(0o700);
    expect((await failureOf(start({}))).message).toBe(`another process listens on ${socket}`);
    await first[Symbol.asyncDispose]();
    const left = createServer().listen(socket);
    await once(left, 'listening');
    const closed = once(left, 'close');
    left.close();
    await closed;
    await start({});
  });

  it('refuses long paths, files in its place and handlers that do not fit', async () => {
    const long = join(dir, 'x'.repeat(100));
    expect((await failureOf(start({}, { listen: { kind: 'unix', path: long } }))).kind).toBe('invalidArgument');
    await writeFile(join(dir, 'file'), '');
    expect((await failureOf(start({}, { listen: { kind: 'unix', path: join(dir, 'file') } }))).kind).toBe('conflict');
    const wrong = { one: serverStream(() => notes('a')) };
    expect((await failureOf(start({}, { services: [[NoteService, wrong]] }))).kind).toBe('internal');
  });

  it('listens on TCP port 0', async () => {
    const { address } = await start(
      { one: unary((request) => Promise.resolve(request)) },
      { listen: { kind: 'tcp', host: '127.0.0.1', port: 0 } },
    );
    const made = connect(NoteService, address, { log });
    clients.push(made);
    expect(await made.one({ text: 'tcp' }, call)).toEqual({ text: 'tcp' });
  });
});

describe('reflection', () => {
  it('tells services, files and symbols from a descriptor set', async () => {
    const root = fileURLToPath(new URL('../../../', import.meta.url));
    const descriptorSet = join(dir, 'flotilla.binpb');
    execFileSync(join(root, 'node_modules/.bin/buf'), ['build', '--output', descriptorSet], {
      cwd: join(root, 'proto'),
    });
    await start({}, { descriptorSet });
    const reflection = connect(rpcReflection.ServerReflectionService, `unix:${socket}`, { log });
    clients.push(reflection);
    const questions: rpcReflection.ServerReflectionRequest['messageRequest'][] = [
      { $case: 'listServices', value: '' },
      { $case: 'fileContainingSymbol', value: 'grpc.health.v1.Health.Check' },
      { $case: 'fileByFilename', value: 'flotilla/volume/v1/volume.proto' },
      { $case: 'fileContainingSymbol', value: 'no.such.Thing' },
    ];
    // eslint-disable-next-line @typescript-eslint/require-await -- an async source is what the API takes
    async function* ask() {
      for (const messageRequest of questions) yield { host: '', messageRequest };
    }
    const answers: rpcReflection.ServerReflectionResponse['messageResponse'][] = [];
    for await (const { messageResponse } of reflection.serverReflectionInfo(ask())) answers.push(messageResponse);
    const [services, health, volume, none] = answers;
    expect(services?.$case === 'listServicesResponse' && services.value.service.map(({ name }) => name)).toEqual([
      'flotilla.note.v1.NoteService',
      'grpc.health.v1.Health',
      'flotilla.config.v1.ConfigService',
    ]);
    expect(health?.$case === 'fileDescriptorResponse' && health.value.fileDescriptorProto).toHaveLength(1);
    // The file and everything it imports.
    expect(volume?.$case === 'fileDescriptorResponse' && volume.value.fileDescriptorProto.length).toBeGreaterThan(1);
    expect(none).toMatchObject({ $case: 'errorResponse', value: { errorCode: 5 } });
  });
});
