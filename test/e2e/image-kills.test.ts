import { randomBytes, randomInt } from 'node:crypto';
import { readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dockerArchive, examineImageStore, gzipLayer, makeImage, plainTar, waitFor } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type CommandResult, type TestEngine } from './test-engine.js';

const mebibyte = 1 << 20;
/** Half of it compresses, so that neither transfer nor unpacking is over at once. */
const content = (mebibytes: number): Buffer =>
  Buffer.concat([randomBytes((mebibytes / 2) * mebibyte), Buffer.alloc((mebibytes / 2) * mebibyte, 'text ')]);

interface Operation {
  /** Bring about that the command has something to do. */
  readonly prepare?: () => Promise<unknown>;
  readonly run: () => Promise<CommandResult>;
  /** What must be true once it has succeeded. */
  readonly check: () => Promise<unknown>;
}

describe('kill -9 at a random instant of an operation on images', () => {
  let t: TestEngine;
  let remote: string;
  let operations: Record<string, Operation>;
  beforeAll(async () => {
    t = await startTestEngine();
    remote = `${t.registry.address}/layered`;
    const layers = [6, 4, 2].map((size, at) => gzipLayer(plainTar([[`file${at}`, content(size)]])));
    const layered = makeImage(layers);
    await t.registry.push(layered, 'layered', 'latest');
    writeFileSync(`${t.directory}/layered.tar`, dockerArchive(makeImage([...layers].reverse()), ['loaded:1']));
    writeFileSync(`${t.directory}/root.tar`, plainTar([['file', content(8)]]));
    await t.ok(
      'run',
      '-d',
      '--name',
      'changed',
      'busybox',
      'sh',
      '-c',
      'head -c 8000000 /dev/urandom > /f; sleep 1000',
    );
    await waitFor(async () => (await t.ok('exec', 'changed', 'wc', '-c', '/f')).startsWith('8000000'), {
      what: 'a change',
    });
    const rmi = (...names: string[]): Promise<unknown> => t.docker(['rmi', '-f', ...names]);
    operations = {
      pull: {
        prepare: () => rmi(remote),
        run: () => t.docker(['pull', '-q', remote]),
        check: async () => expect(await t.ok('inspect', '-f', '{{.Id}}', remote)).toBe(layered.id),
      },
      load: {
        prepare: () => rmi('loaded:1'),
        run: () => t.docker(['load', '-qi', `${t.directory}/layered.tar`]),
        check: () => t.ok('inspect', 'loaded:1'),
      },
      import: {
        prepare: () => rmi('imported:1'),
        run: () => t.docker(['import', `${t.directory}/root.tar`, 'imported:1']),
        check: () => t.ok('inspect', 'imported:1'),
      },
      commit: {
        prepare: () => rmi('committed:1'),
        run: () => t.docker(['commit', 'changed', 'committed:1']),
        check: async () => {
          await t.ok('run', '--rm', 'committed:1', 'test', '-s', '/f');
          expect(await t.ok('inspect', '-f', '{{.State.Status}}', 'changed')).toBe('running');
        },
      },
      push: {
        prepare: async () => {
          await t.ok('load', '-qi', `${t.directory}/layered.tar`);
          await t.ok('tag', 'loaded:1', `${t.registry.address}/pushed:${randomInt(1 << 30)}`);
        },
        run: () => t.docker(['push', '-qa', `${t.registry.address}/pushed`]),
        check: () => rmi('loaded:1'),
      },
      save: {
        prepare: () => t.ok('load', '-qi', `${t.directory}/layered.tar`),
        run: () => t.docker(['save', '-o', `${t.directory}/saved.tar`, 'loaded:1']),
        check: () => t.ok('load', '-qi', `${t.directory}/saved.tar`),
      },
      export: {
        run: () => t.docker(['export', '-o', `${t.directory}/exported.tar`, 'changed']),
        check: () => t.ok('import', `${t.directory}/exported.tar`, 'exported:1'),
      },
      prune: {
        prepare: () => t.ok('load', '-qi', `${t.directory}/layered.tar`),
        run: () => t.docker(['image', 'prune', '-af']),
        check: async () => expect((await t.docker(['inspect', 'loaded:1'])).code).toBe(1),
      },
    };
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });

  const kill = async (name: string): Promise<void> => {
    const pid = (await t.engine.services()).find(({ service }) => service === name)?.pid ?? 0;
    if (pid !== 0) process.kill(pid, 'SIGKILL');
  };
  const serving = (): Promise<unknown> =>
    waitFor(async () => (await t.engine.services()).every(({ health }) => health === 'SERVING'), {
      what: 'every service to be back',
      timeoutMs: 30_000,
    });

  const exchangeDir = (): string => join(t.engine.dataRoot, 'exchange');

  it.each(['load', 'import', 'save', 'export'])('%s does without the exchange directory', async (name) => {
    const operation = operations[name];
    await operation?.prepare?.();
    renameSync(exchangeDir(), `${exchangeDir()}-gone`);
    try {
      expect(await operation?.run()).toMatchObject({ code: 0 });
    } finally {
      renameSync(`${exchangeDir()}-gone`, exchangeDir());
    }
    await operation?.check();
  });

  it.each([
    ['pull', ['image', 'registry-proxy', 'api-gateway']],
    ['load', ['image', 'api-gateway']],
    ['import', ['image', 'api-gateway']],
    ['commit', ['image', 'container', 'api-gateway']],
    ['push', ['image', 'registry-proxy']],
    ['save', ['image', 'api-gateway']],
    ['export', ['image', 'container', 'api-gateway']],
    ['prune', ['image', 'api-gateway']],
  ])('%s: the store is whole and the same command succeeds after the death of %j', async (name, victims) => {
    const operation = operations[name];
    if (operation === undefined) throw new Error(`no operation ${name}`);
    await operation.prepare?.();
    const began = performance.now();
    expect((await operation.run()).code).toBe(0);
    const lastsMs = performance.now() - began;
    await operation.check();
    for (const victim of victims) {
      await operation.prepare?.();
      // A random instant is what is tested: nothing is waited for.
      const instant = new Promise((resolve) => setTimeout(resolve, Math.random() * lastsMs));
      const running = operation.run();
      await instant;
      await kill(victim);
      const { code, stderr } = await running;
      await serving();
      if (code !== 0) expect(stderr, `${name}, ${victim} killed`).toMatch(/\S/);
      // What was done although the answer was lost needs no second time, and a second time does no harm.
      expect(await operation.run(), `${name} after ${victim} was killed`).toMatchObject({ code: 0 });
      await operation.check();
      expect(await examineImageStore(t.engine), `${name}, ${victim} killed`).toEqual({ exitCode: 0, findings: [] });
      const fifos = readdirSync(exchangeDir()).filter((entry) => entry.startsWith('fifo-'));
      expect(fifos, `${name}, ${victim} killed`).toEqual([]);
    }
  });
});
