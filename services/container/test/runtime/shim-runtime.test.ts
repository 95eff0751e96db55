import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createLogger } from '@flotilla/log';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { AttachSession, TaskExit } from '../../src/runtime/runtime.js';
import { RuntimeFailure } from '../../src/runtime/runtime.js';
import { ShimRuntime } from '../../src/runtime/shim-runtime.js';
import {
  type TestBundle,
  type TestSpec,
  makeBundle,
  makeTestRoot,
  missingForContainers,
  removeTestRoot,
} from './bundle.js';

const missing = missingForContainers();
if (missing !== undefined) process.stderr.write(`container runtime tests are skipped: ${missing}\n`);

describe.skipIf(missing !== undefined)('containers in shims', () => {
  let root: string;
  let runtime: ShimRuntime;
  const log = createLogger({ service: 'test', level: 'error' });

  const open = () => ShimRuntime.open({ execRoot: root, log, onFatal: (error) => expect.unreachable(error.message) });

  beforeAll(async () => {
    root = makeTestRoot();
    mkdirSync(join(root, 'containers'));
    runtime = await open();
  });

  afterAll(async () => {
    await runtime.close();
    removeTestRoot(root);
  });

  afterEach(async () => {
    await expectNothingLeft(root);
  });

  interface RunOptions {
    terminal?: boolean;
    openStdin?: boolean;
    driver?: 'json-file' | 'none';
    change?: (spec: TestSpec) => void;
  }

  async function create(args: string[], options: RunOptions = {}) {
    const { terminal = false, openStdin = false, driver = 'json-file' } = options;
    const made = makeBundle(root, args, { terminal, ...(options.change && { change: options.change }) });
    const task = await createIn(made, terminal, openStdin, driver);
    return { ...made, task };
  }

  function createIn(made: TestBundle, terminal: boolean, openStdin: boolean, driver: 'json-file' | 'none') {
    return runtime.create({
      id: made.id,
      bundle: made.bundle,
      terminal,
      openStdin,
      stdinOnce: true,
      runtimeBinary: 'runc',
      log: { driver, path: made.logPath },
    });
  }

  async function run(args: string[], options: RunOptions = {}): Promise<{ exit: TaskExit; out: string; err: string }> {
    const { task } = await create(args, options);
    const session = task.streams.attach({ stdin: false, stdout: true, stderr: true });
    await task.start();
    const { out, err } = await collect(session, options.terminal ?? false);
    const exit = await task.exited;
    await task.delete();
    runtime.forgetStreams(task.id);
    return { exit, out, err };
  }

  it('tell exit codes as they are, and 128 + n for signals', async () => {
    expect((await run(['true'])).exit.exitCode).toBe(0);
    expect((await run(['sh', '-c', 'exit 3'])).exit.exitCode).toBe(3);
    const { task } = await create(['sleep', '100']);
    await task.start();
    await task.kill(9);
    expect((await task.exited).exitCode).toBe(137);
    await expect(task.kill(9)).rejects.toMatchObject({ kind: 'notFound' });
    await task.delete();
  });

  it('deliver the first byte to a session attached before the start, and log it', async () => {
    const made = makeBundle(root, ['sh', '-c', 'printf first; echo err >&2; echo; echo last']);
    const session = runtime
      .streams(made.id, { terminal: false, openStdin: false, stdinOnce: false })
      .attach({ stdin: false, stdout: true, stderr: true });
    const task = await createIn(made, false, false, 'json-file');
    await session.ready;
    await task.start();
    expect(await collect(session, false)).toEqual({ out: 'first\nlast\n', err: 'err\n' });
    await task.delete();
    const entries = readFileSync(made.logPath, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { log: string; stream: string });
    expect(entries.map(({ log: text, stream }) => [stream, text])).toEqual(
      expect.arrayContaining([
        ['stdout', 'first\n'],
        ['stderr', 'err\n'],
        ['stdout', 'last\n'],
      ]),
    );
    expect(existsSync(`${made.logPath}.partial`)).toBe(false);
  });

  it.each([
    [['/nope'], 127],
    [['nope'], 127],
    [['/etc'], 126],
    [['/etc/passwd'], 126],
  ] as const)('fail to start %j with %i and leave nothing', async (args, exitCode) => {
    const failure = await create([...args]).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(RuntimeFailure);
    expect((failure as RuntimeFailure).exitCode).toBe(exitCode);
  });

  it('fail with 125 for a missing mount source', async () => {
    const change: RunOptions['change'] = (spec) => {
      spec.mounts.push({ destination: '/x', type: 'bind', source: '/no/such', options: ['rbind'] });
    };
    await expect(create(['true'], { change })).rejects.toMatchObject({ exitCode: 125 });
  });

  it('fail with 125 for a runtime that is not there', async () => {
    const made = makeBundle(root, ['true']);
    const failing = runtime.create({
      id: made.id,
      bundle: made.bundle,
      terminal: false,
      openStdin: false,
      runtimeBinary: 'no-such-runtime',
      log: { driver: 'none', path: '' },
    });
    await expect(failing).rejects.toMatchObject({ exitCode: 125 });
  });

  it('have a terminal with a size', async () => {
    const { task } = await create(['sh'], { terminal: true, openStdin: true });
    const session = task.streams.attach({ stdin: true, stdout: true, stderr: true });
    await task.start();
    await task.resize(123, 45);
    await session.stdin.write(Buffer.from('stty size; tty; exit 5\n'));
    const { out } = await collect(session, true);
    expect(out).toContain('45 123\r\n/dev/pts/0\r\n');
    expect((await task.exited).exitCode).toBe(5);
    await task.delete();
  });

  it('detach by keys and go on', async () => {
    const { task } = await create(['sh'], { terminal: true, openStdin: true });
    await task.start();
    const detachKeys = Uint8Array.of(16, 17);
    const session = task.streams.attach({ stdin: true, stdout: true, stderr: true, detachKeys });
    await session.stdin.write(Uint8Array.of(16));
    await session.stdin.write(Uint8Array.of(17));
    expect(await session.ended).toBe('detached');
    await task.kill(9);
    await task.exited;
    await task.delete();
  });

  it('pass standard input through to its end and bring all of it back', async () => {
    const { task, logPath } = await create(['cat'], { openStdin: true });
    const session = task.streams.attach({ stdin: true, stdout: true, stderr: true });
    await task.start();
    const line = Buffer.from(`${'0123456789abcde'.repeat(8)}\n`);
    const block = Buffer.concat(Array.from({ length: 1024 }, () => line));
    const blocks = 40;
    const writing = (async () => {
      for (let index = 0; index < blocks; index++) await session.stdin.write(block);
      session.stdin.end();
    })();
    const { out } = await collect(session, false);
    await writing;
    expect((await task.exited).exitCode).toBe(0);
    expect(out.length).toBe(block.length * blocks);
    await task.delete();
    const reader = runtime.openLogReader({ driver: 'json-file', path: logPath });
    let logged = 0;
    const options = { stdout: true, stderr: true, terminal: true, timestamps: false, details: false, follow: false };
    for await (const { frames } of reader.read(options)) logged += frames.length;
    expect(logged).toBe(out.length);
  });

  it('stop their output while a session does not read, and lose nothing for it', async () => {
    const { task } = await create(['sh', '-c', 'seq 1 400000; echo done >&2'], { driver: 'none' });
    const slow = task.streams.attach({ stdin: false, stdout: true, stderr: false });
    const fast = task.streams.attach({ stdin: false, stdout: true, stderr: true });
    await task.start();
    const fastResult = collect(fast, false);
    const stillRunning = await Promise.race([
      task.exited.then(() => false),
      new Promise((resolve) => setTimeout(resolve, 700, true)),
    ]);
    expect(stillRunning).toBe(true);
    const [one, two] = await Promise.all([collect(slow, false), fastResult]);
    expect(one.out).toBe(two.out);
    expect(one.err).toBe('');
    expect(two.err).toBe('done\n');
    expect(one.out.trimEnd().split('\n').length).toBe(400000);
    await task.exited;
    await task.delete();
  });

  it('run on when the only session leaves', async () => {
    const { task } = await create(['sh', '-c', 'seq 1 400000'], { driver: 'none' });
    const leave = new AbortController();
    task.streams.attach({ stdin: false, stdout: true, stderr: true, signal: leave.signal });
    await task.start();
    leave.abort();
    expect((await task.exited).exitCode).toBe(0);
    await task.delete();
  });

  it('show what was logged first to a session that asks for it', async () => {
    const { task, logPath } = await create(['sh', '-c', 'seq 1 1000; printf part; cat'], { openStdin: true });
    await task.start();
    await waitFor(() => existsSync(logPath) && readFileSync(logPath, 'utf8').includes('"1000\\n"'));
    await waitFor(() => readFileSync(`${logPath}.partial`).includes('part'));
    const session = task.streams.attach({ stdin: true, stdout: true, stderr: true, logs: true });
    await session.ready;
    await session.stdin.write(Buffer.from('typed\n'));
    session.stdin.end();
    const expected = `${Array.from({ length: 1000 }, (_, index) => `${index + 1}\n`).join('')}parttyped\n`;
    expect((await collect(session, false)).out).toBe(expected);
    await task.exited;
    await task.delete();
  });

  it('run further processes', async () => {
    const { task } = await create(['sleep', '100']);
    await task.start();
    const process = (args: string[]) =>
      JSON.stringify({ user: { uid: 0, gid: 0 }, args, env: ['PATH=/bin'], cwd: '/' });
    const exec = await task.exec({
      execId: 'a',
      processJson: process(['sh', '-c', 'cat; echo e >&2; exit 3']),
      terminal: false,
      stdin: true,
    });
    const session = exec.streams.attach({ stdin: true, stdout: true, stderr: true });
    await exec.start();
    await session.stdin.write(Buffer.from('hello\n'));
    session.stdin.end();
    expect(await collect(session, false)).toEqual({ out: 'hello\n', err: 'e\n' });
    expect((await exec.exited).exitCode).toBe(3);
    await exec.delete();
    const failing = await task.exec({ execId: 'b', processJson: process(['nope']), terminal: false, stdin: false });
    await expect(failing.start()).rejects.toMatchObject({ exitCode: 127 });
    expect(readdirSync(join(root, 'containers', task.id)).filter((name) => name.startsWith('exec-'))).toEqual([]);
    await task.kill(9);
    await task.exited;
    await task.delete();
  });

  it('can be prepared before they are created, and this can be taken back', async () => {
    const made = makeBundle(root, ['sh', '-c', 'echo prepared']);
    runtime.prepare({ id: made.id, bundle: made.bundle, terminal: false, openStdin: false });
    const task = await createIn(made, false, false, 'json-file');
    const session = task.streams.attach({ stdin: false, stdout: true, stderr: true });
    await task.start();
    expect((await collect(session, false)).out).toBe('prepared\n');
    await task.delete();
    const other = makeBundle(root, ['true']);
    runtime.prepare({ id: other.id, bundle: other.bundle, terminal: false, openStdin: true });
    await runtime.abandon(other.id);
  });

  it('pause, resume, list processes, change limits', async () => {
    const { task } = await create(['sh', '-c', 'while :; do echo x; sleep 0.02; done']);
    await task.start();
    await task.pause();
    await task.resume();
    expect(await task.pids()).toContain(task.pid);
    await task.update(JSON.stringify({ memory: { limit: 64 << 20 } }));
    await task.kill(15);
    await task.kill(9);
    await task.exited;
    await task.delete();
  });

  it('tell that memory ran out', async () => {
    const change: RunOptions['change'] = (spec) => {
      spec.linux.resources.memory = { limit: 16 << 20, swap: 16 << 20 };
    };
    const { exit } = await run(['sh', '-c', 'tail /dev/zero; exit 4'], { change });
    expect(exit).toMatchObject({ exitCode: 4, oomKilled: true });
  });

  it('end with 137 and leave nothing when the shim is killed', async () => {
    const { task, bundle } = await create(['sleep', '100']);
    await task.start();
    process.kill(Number(readFileSync(join(bundle, 'shim.pid'), 'utf8')), 'SIGKILL');
    expect((await task.exited).exitCode).toBe(137);
    await task.delete();
    await waitFor(() => !isRunning(task.pid));
  });

  it('outlive the runtime and are found again, running or ended', async () => {
    const running = await create(['sh', '-c', 'i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; sleep 0.02; done']);
    const ending = await create(['sh', '-c', 'sleep 0.2; echo late; exit 7']);
    await running.task.start();
    await ending.task.start();
    await runtime.close();
    await waitFor(() => !isRunning(ending.task.pid));
    runtime = await open();
    const again = async ({ task, bundle, logPath }: typeof running) => {
      const found = await runtime.reattach({
        id: task.id,
        bundle,
        shimAddress: task.shimAddress,
        terminal: false,
        log: { driver: 'json-file', path: logPath },
      });
      if ('gone' in found) throw new Error('gone');
      return found;
    };
    const ended = await again(ending);
    expect(ended.stateAtFirst).toBe('stopped');
    expect((await ended.exited).exitCode).toBe(7);
    await ended.delete();
    expect(readFileSync(ending.logPath, 'utf8')).toContain('"late\\n"');
    const task = await again(running);
    expect(task).toMatchObject({ stateAtFirst: 'running', pid: running.task.pid });
    expect((await task.exited).exitCode).toBe(0);
    await task.delete();
    const lines = readFileSync(running.logPath, 'utf8').trimEnd().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { log: string }).log.trim())).toEqual(
      Array.from({ length: 50 }, (_, index) => String(index + 1)),
    );
  });

  it('do the same in shims that have to be started by their start command', async () => {
    await runtime.close();
    const shimPath = join(root, 'shim');
    const script = '[ "$1" = -v ] && { echo "  Version: v2.0.0"; exit; }\nexec /usr/bin/containerd-shim-runc-v2 "$@"\n';
    writeFileSync(shimPath, `#!/bin/sh\n${script}`, { mode: 0o755 });
    const openThis = () => ShimRuntime.open({ execRoot: root, shimPath, log, onFatal: () => undefined });
    runtime = await openThis();
    const { task, bundle, logPath, id } = await create(['sh', '-c', 'sleep 0.2; echo late; exit 7']);
    expect(readFileSync(join(bundle, 'address'), 'utf8')).toContain('/run/containerd/s/');
    await task.start();
    await runtime.close();
    await waitFor(() => !isRunning(task.pid));
    runtime = await openThis();
    const { shimAddress } = task;
    const driver = 'json-file' as const;
    const input = { id, bundle, shimAddress, terminal: false, log: { driver, path: logPath } };
    const found = await runtime.reattach(input);
    if ('gone' in found) throw new Error('gone');
    expect((await found.exited).exitCode).toBe(7);
    await found.delete();
    expect(readFileSync(logPath, 'utf8')).toContain('"late\\n"');
    await runtime.close();
    runtime = await open();
  });

  it('are gone when their shim died while nobody looked', async () => {
    const { task, bundle, logPath } = await create(['sleep', '100']);
    await task.start();
    await runtime.close();
    process.kill(Number(readFileSync(join(bundle, 'shim.pid'), 'utf8')), 'SIGKILL');
    runtime = await open();
    const found = await runtime.reattach({
      id: task.id,
      bundle,
      shimAddress: task.shimAddress,
      terminal: false,
      log: { driver: 'json-file', path: logPath },
    });
    expect(found).toEqual({ gone: true });
    await runtime.cleanup(task.id, bundle);
  });

  it('keep their shims in a cgroup of their own when asked to', async () => {
    const made = makeBundle(root, ['sleep', '100']);
    const task = await runtime.create({
      id: made.id,
      bundle: made.bundle,
      terminal: false,
      openStdin: false,
      runtimeBinary: 'runc',
      shimCgroup: 'flotilla-test-shims',
      log: { driver: 'none', path: '' },
    });
    const shimPid = readFileSync(join(made.bundle, 'shim.pid'), 'utf8');
    await waitFor(() => readFileSync(`/proc/${shimPid}/cgroup`, 'utf8').includes(':/flotilla-test-shims'));
    await task.delete();
    await waitFor(() => !existsSync(`/proc/${shimPid}`));
    for (const root of ['', '/unified', '/systemd']) {
      const cgroup = `/sys/fs/cgroup${root}/flotilla-test-shims`;
      if (existsSync(cgroup)) rmdirSync(cgroup);
    }
  });

  async function expectNothingLeft(directory: string): Promise<void> {
    await waitFor(() => processesOf(directory).length === 0);
    expect(readFileSync('/proc/self/mountinfo', 'utf8').includes(directory)).toBe(false);
    const runcState = join(directory, 'runc/flotilla');
    expect(existsSync(runcState) ? readdirSync(runcState) : []).toEqual([]);
    for (const id of readdirSync(join(directory, 'containers'))) {
      const bundle = join(directory, 'containers', id);
      expect(readdirSync(bundle).filter((name) => name.startsWith('std'))).toEqual([]);
      const address = join(bundle, 'address');
      if (existsSync(address)) {
        const socket = readFileSync(address, 'utf8').trim().replace('unix://', '');
        await waitFor(() => !existsSync(socket));
      }
    }
    removeTestRoot(join(directory, 'containers'));
    mkdirSync(join(directory, 'containers'));
  }
});

function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Shims and runtimes that were started for a directory. */
function processesOf(directory: string): string[] {
  const listing = execFileSync('ps', ['-eo', 'pid=,stat=,args='], { encoding: 'utf8' });
  return listing.split('\n').filter((line) => line.includes(directory) && !/^\s*\d+\s+Z/.test(line));
}

async function waitFor(condition: () => boolean, limitMs = 10_000): Promise<void> {
  const deadline = Date.now() + limitMs;
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`condition not met in ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

async function collect(session: AttachSession, terminal: boolean): Promise<{ out: string; err: string }> {
  const chunks: Buffer[] = [];
  for await (const bytes of session.output) chunks.push(Buffer.from(bytes));
  const all = Buffer.concat(chunks);
  if (terminal) return { out: all.toString(), err: '' };
  const parts: [Buffer[], Buffer[]] = [[], []];
  for (let at = 0; at < all.length;) {
    const length = all.readUInt32BE(at + 4);
    parts[(all[at] ?? 1) - 1]?.push(all.subarray(at + 8, at + 8 + length));
    at += 8 + length;
  }
  return { out: Buffer.concat(parts[0]).toString(), err: Buffer.concat(parts[1]).toString() };
}
