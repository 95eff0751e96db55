import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { createLogger } from '@flotilla/log';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ShimRuntime } from '../../src/runtime/shim-runtime.js';
import { makeBundle, makeTestRoot, missingForContainers, removeTestRoot } from './bundle.js';

/** What a killed process may lose: one read that was not appended yet. */
const READ_BYTES = 64 * 1024;
const KILLS = 5;

describe.skipIf(missingForContainers() !== undefined)('a process that is killed while its container writes', () => {
  let root: string;

  beforeAll(() => {
    root = makeTestRoot();
    mkdirSync(join(root, 'containers'));
  });

  afterAll(() => removeTestRoot(root));

  async function startHost(input: object): Promise<{ host: ChildProcess; pid: number; shimAddress: string }> {
    const host = spawn(
      process.execPath,
      [join(import.meta.dirname, 'host-process.mjs'), JSON.stringify({ execRoot: root, ...input })],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const [line] = (await once(createInterface(host.stdout), 'line')) as [string];
    return { host, ...(JSON.parse(line) as { pid: number; shimAddress: string }) };
  }

  it('loses at most one read for each kill, doubles nothing, and its successor tells the exit code', async () => {
    const lines = 1_500_000;
    const { id, bundle, logPath } = makeBundle(root, [
      'sh',
      '-c',
      `awk 'BEGIN{for(i=1;i<=${lines};i++) print i, i*7919%1000003}'; exit 42`,
    ]);
    const log = { driver: 'json-file', path: logPath } as const;
    const common = { id, bundle, terminal: false, log };
    let { host, pid, shimAddress } = await startHost({
      create: { ...common, openStdin: false, runtimeBinary: 'runc' },
    });
    const firstPid = pid;
    for (let kill = 0; kill < KILLS; kill++) {
      const size = statSync(logPath).size;
      await grow(logPath, size + 3_000_000);
      host.kill('SIGKILL');
      await once(host, 'exit');
      if (kill === KILLS - 1) break;
      ({ host, pid, shimAddress } = await startHost({ reattach: { ...common, shimAddress } }));
      expect(pid).toBe(firstPid);
    }
    // The container ends, as far as its full pipes let it, while nobody looks.
    const runtime = await ShimRuntime.open({
      execRoot: root,
      log: createLogger({ service: 'test', level: 'error' }),
      onFatal: (error) => expect.unreachable(error.message),
    });
    const task = await runtime.reattach({ ...common, shimAddress });
    if ('gone' in task) throw new Error('gone');
    expect((await task.exited).exitCode).toBe(42);
    await task.delete();
    await runtime.close();

    const texts = readFileSync(logPath, 'latin1')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line) as { log: string }).log);
    let expected = 1;
    let lostBytes = 0;
    let joined = 0;
    let doubled = 0;
    for (const text of texts) {
      const number = Number(text.split(' ')[0]);
      if (text !== numbered(number)) {
        // Where a part was lost, what is left of two lines makes one.
        joined++;
        continue;
      }
      if (number < expected) doubled++;
      for (; expected < number; expected++) lostBytes += numbered(expected).length;
      expected++;
    }
    expect(doubled).toBe(0);
    expect(expected).toBe(lines + 1);
    expect(joined).toBeLessThanOrEqual(KILLS);
    expect(lostBytes).toBeLessThanOrEqual(KILLS * READ_BYTES);
  });
});

/** A line that cannot be mistaken for pieces of two. */
function numbered(number: number): string {
  return `${number} ${(number * 7919) % 1_000_003}\n`;
}

async function grow(path: string, size: number): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (statSync(path).size < size) {
    if (Date.now() > deadline) throw new Error(`${path} does not grow`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
