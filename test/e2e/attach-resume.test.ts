import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { waitFor } from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

/** A docker CLI at the streams of a container. */
class Attached {
  readonly #child;
  readonly #chunks: Buffer[] = [];
  readonly #errors: Buffer[] = [];

  constructor(t: TestEngine, args: string[]) {
    const env = {
      ...process.env,
      DOCKER_HOST: `unix://${t.engine.socket}`,
      DOCKER_CONFIG: `${t.directory}/docker-config`,
    };
    this.#child = spawn('docker', args, { env, stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stdout.on('data', (chunk: Buffer) => this.#chunks.push(chunk));
    this.#child.stderr.on('data', (chunk: Buffer) => this.#errors.push(chunk));
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString('latin1');
  }

  get errors(): string {
    return Buffer.concat(this.#errors).toString();
  }

  type(text: string): void {
    this.#child.stdin.write(text);
  }

  close(): void {
    this.#child.stdin.end();
  }

  async end(): Promise<number | null> {
    if (this.#child.exitCode === null) await once(this.#child, 'close');
    return this.#child.exitCode;
  }
}

const lines = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, at) => `line ${from + at}\n`).join('');

describe('an attached client, when the container service dies', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
  });
  const servicePid = async () => (await t.engine.services()).find(({ service }) => service === 'container')?.pid ?? 0;
  let killed = 0;
  const kill = async () => {
    killed = await servicePid();
    killProcess(killed);
  };
  /** Another one answers. */
  const back = () =>
    waitFor(
      async () => {
        const now = (await t.engine.services()).find(({ service }) => service === 'container');
        return now?.health === 'SERVING' && now.pid !== killed;
      },
      { what: 'the container service', timeoutMs: 60_000 },
    );
  const seen = (client: Attached, text: string) =>
    waitFor(() => client.text.includes(text), { what: text, timeoutMs: 60_000 });
  let flags = 0;
  /** A directory of the host's, and a file in it that the container waits for. */
  const flag = () => {
    const directory = join(t.directory, `flag-${flags++}`);
    mkdirSync(directory);
    return { mount: ['-v', `${directory}:/flags`], raise: () => writeFileSync(join(directory, 'go'), '') };
  };
  const awaitFlag = 'while [ ! -e /flags/go ]; do sleep 0.05; done';

  it.each([['json-file'], ['local']])(
    'gets every byte of both streams once, over several deaths: %s',
    async (driver) => {
      const { mount, raise } = flag();
      const script = `i=0; while [ $i -lt 3000 ] || [ ! -e /flags/go ]; do i=$((i+1)); printf "line "; echo $i; [ $((i % 7)) = 0 ] && echo "line $i" >&2; [ $((i % 20)) = 0 ] && sleep 0.01; done; printf end; exit 3`;
      const client = new Attached(t, ['run', '--log-driver', driver, ...mount, 'busybox', 'sh', '-c', script]);
      await seen(client, 'line 100\n');
      for (let round = 0; round < 3; round++) {
        await kill();
        await back();
        const before = client.text.length;
        await waitFor(() => client.text.length > before + 2000, { what: 'more output', timeoutMs: 60_000 });
      }
      raise();
      expect(await client.end()).toBe(3);
      const count = Number(/line (\d+)\nend$/.exec(client.text)?.[1]);
      expect(client.text).toBe(`${lines(1, count)}end`);
      const sevenths = Array.from({ length: Math.floor(count / 7) }, (_, at) => `line ${(at + 1) * 7}\n`).join('');
      expect(client.errors).toBe(sevenths);
    },
  );

  it('goes on typing, and a line that is not complete comes once', async () => {
    const script =
      'printf "prompt> "; while read -r line; do echo "got $line"; printf "prompt> "; done; echo bye; exit 5';
    const client = new Attached(t, ['run', '-i', 'busybox', 'sh', '-c', script]);
    await seen(client, 'prompt> ');
    for (const word of ['one', 'two', 'three']) {
      client.type(`${word}\n`);
      await seen(client, `got ${word}\nprompt> `);
      await kill();
      // What is typed into a connection that just breaks may or may not have arrived: that would end the stream.
      await back();
    }
    client.close();
    expect(await client.end()).toBe(5);
    expect(client.text).toBe('prompt> got one\nprompt> got two\nprompt> got three\nprompt> bye\n');
    expect(client.errors).toBe('');
  });

  it('goes on when the service is stopped in order, too', async () => {
    const { mount, raise } = flag();
    const client = new Attached(t, [
      'run',
      ...mount,
      'busybox',
      'sh',
      '-c',
      `echo begun; ${awaitFlag}; echo ended; exit 4`,
    ]);
    await seen(client, 'begun');
    killed = await servicePid();
    process.kill(killed, 'SIGTERM');
    await back();
    raise();
    expect(await client.end()).toBe(4);
    expect(client.text).toBe('begun\nended\n');
    expect(client.errors).toBe('');
  });

  it('gets what a container wrote that ended meanwhile, and its exit code', async () => {
    const { mount, raise } = flag();
    const script = `echo begun; printf part; ${awaitFlag}; echo ial; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo "line $i"; done; exit 9`;
    const client = new Attached(t, ['run', ...mount, 'busybox', 'sh', '-c', script]);
    await seen(client, 'part');
    await kill();
    raise();
    expect(await client.end()).toBe(9);
    expect(client.text).toBe(`begun\npartial\n${lines(1, 2000)}`);
  });

  it('is told when nothing keeps the output', async () => {
    const { mount, raise } = flag();
    const script = `echo begun; ${awaitFlag}`;
    const client = new Attached(t, ['run', '--log-driver', 'none', ...mount, 'busybox', 'sh', '-c', script]);
    await seen(client, 'begun');
    await kill();
    await waitFor(() => client.errors.includes('the container goes on, attach again'), { what: 'the sentence' });
    raise();
    await client.end();
  });

  it('is told when input was on its way, and the container gets the end of what it was given', async () => {
    const { mount, raise } = flag();
    const script = `echo begun; ${awaitFlag}; cat > /dev/null; exit 6`;
    const client = new Attached(t, ['run', '-i', ...mount, 'busybox', 'sh', '-c', script]);
    const unkept = new Attached(t, ['run', '-i', '--log-driver', 'none', 'busybox', 'sh', '-c', 'echo begun; cat']);
    await Promise.all([client, unkept].map((one) => seen(one, 'begun')));
    // Far more than the pipe holds.
    client.type('x'.repeat(8 << 20));
    await kill();
    for (const one of [client, unkept]) {
      await waitFor(() => one.errors.includes('the container goes on, attach again'), { what: 'the sentence' });
    }
    raise();
    expect(await Promise.all([client.end(), unkept.end()])).toEqual([6, 0]);
  });
});
