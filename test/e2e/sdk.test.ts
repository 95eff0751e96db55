import { PassThrough } from 'node:stream';
import Dockerode from 'dockerode';
import { DockerClient } from '@docker/node-sdk';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { startTestEngine, type TestEngine } from './test-engine.js';

const collect = (stream: PassThrough): (() => string) => {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return () => Buffer.concat(chunks).toString();
};

describe('Docker SDKs', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  it('dockerode pulls, runs, inspects and removes', async () => {
    const docker = new Dockerode({ socketPath: t.engine.socket });
    const reference = `${t.registry.address}/busybox:latest`;
    const pull = await docker.pull(reference);
    await new Promise<void>((resolve, reject) =>
      docker.modem.followProgress(pull, (err) => (err ? reject(err) : resolve())),
    );
    const out = new PassThrough();
    const text = collect(out);
    const [result, container] = (await docker.run(reference, ['sh', '-c', 'echo from dockerode; exit 2'], out)) as [
      { StatusCode: number },
      Dockerode.Container,
    ];
    expect(result.StatusCode).toBe(2);
    expect(text().replaceAll('\r\n', '\n')).toBe('from dockerode\n');
    expect((await container.inspect()).State.ExitCode).toBe(2);
    await container.remove();
    await expect(container.inspect()).rejects.toMatchObject({ statusCode: 404 });
    expect((await docker.listImages()).length).toBeGreaterThan(0);
  });

  it('a WebSocket types into a terminal, and detaches with the keys', async () => {
    await t.ok('create', '-it', '--name', 'terminal', 'busybox', 'sh');
    const path = '/v1.51/containers/terminal/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x';
    const socket = new WebSocket(`ws+unix:${t.engine.socket}:${path}`);
    let text = '';
    socket.on('message', (data: Buffer) => (text += data.toString()));
    const closed = new Promise<number>((resolve) => socket.on('close', resolve));
    await new Promise((resolve) => socket.on('open', resolve));
    await t.ok('start', 'terminal');
    socket.send('echo $((6 * 7))\n');
    await expect.poll(() => text, { timeout: 10_000 }).toContain('\r\n42\r\n');
    socket.send(Buffer.from([24]));
    expect(await closed).toBe(1000);
    expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'terminal')).toBe('running');
    await t.ok('rm', '-f', 'terminal');
  });

  it('dockerode attaches with stdin over a hijacked connection', async () => {
    const docker = new Dockerode({ socketPath: t.engine.socket });
    const container = await docker.createContainer({
      Image: 'busybox',
      Cmd: ['cat'],
      OpenStdin: true,
      StdinOnce: true,
      AttachStdin: true,
      AttachStdout: true,
    });
    const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
    const out = new PassThrough();
    const text = collect(out);
    docker.modem.demuxStream(stream, out, out);
    await container.start();
    const ended = new Promise((resolve) => stream.on('end', resolve));
    stream.write('first\n');
    stream.end('second\n');
    expect(((await container.wait()) as { StatusCode: number }).StatusCode).toBe(0);
    await ended;
    expect(text()).toBe('first\nsecond\n');
    await container.remove();
  });

  it('@docker/node-sdk lists, creates, starts, waits and removes', async () => {
    const docker = await DockerClient.fromDockerHost(`unix:${t.engine.socket}`);
    const { Id } = await docker.containerCreate({ Image: 'busybox', Cmd: ['sh', '-c', 'exit 3'] }, { name: 'sdk' });
    await docker.containerStart(Id);
    expect((await docker.containerWait(Id)).StatusCode).toBe(3);
    expect((await docker.containerList({ all: true })).map((c) => c.Names?.[0])).toEqual(['/sdk']);
    expect((await docker.containerInspect(Id)).State?.Status).toBe('exited');
    await docker.containerDelete(Id);
    expect(await docker.containerList({ all: true })).toEqual([]);
    expect((await docker.systemInfo()).ID).toMatch(/^[0-9a-f-]{36}$/);
    await docker.close();
  });
});
