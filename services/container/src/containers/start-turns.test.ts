import { describe, expect, it } from 'vitest';
import { StartTurns } from './start-turns.js';

const dependencies = new Map([
  ['web', new Set(['db', 'cache'])],
  ['db', new Set<string>()],
  ['cache', new Set<string>()],
]);

/** Starts that end when they are told to, and the order in which they began. */
function makeStarts(turns: StartTurns) {
  const begun: string[] = [];
  const ends = new Map<string, (error?: Error) => void>();
  const run = (id: string): Promise<void> =>
    turns.run(id, () => {
      begun.push(id);
      return new Promise((resolve, reject) => {
        ends.set(id, (error) => (error === undefined ? resolve() : reject(error)));
      });
    });
  return { begun, run, end: (id: string, error?: Error) => ends.get(id)?.(error) };
}

const settled = () => new Promise(setImmediate);

describe('turns of starts', () => {
  it('let a container wait for those it needs, also when their start fails', async () => {
    const turns = new StartTurns();
    const { begun, run, end } = makeStarts(turns);
    for (const id of ['web', 'db', 'cache']) turns.expect(id);
    const all = ['web', 'db', 'cache'].map((id) => run(id).catch(String));
    await settled();
    expect(begun).toEqual([]);
    turns.plan(dependencies);
    await settled();
    expect(begun).toEqual(['db', 'cache']);
    end('cache');
    await settled();
    expect(begun).toEqual(['db', 'cache']);
    end('db', new Error('no such image'));
    await settled();
    expect(begun).toEqual(['db', 'cache', 'web']);
    end('web');
    expect(await Promise.all(all)).toEqual([undefined, 'Error: no such image', undefined]);
  });

  it('wait for nobody who is not to be started, or will not be any more', async () => {
    const turns = new StartTurns();
    const { begun, run, end } = makeStarts(turns);
    turns.expect('web');
    turns.expect('db');
    turns.plan(dependencies);
    const web = run('web');
    await settled();
    expect(begun).toEqual([]);
    turns.settle('db');
    await settled();
    expect(begun).toEqual(['web']);
    end('web');
    await web;
  });

  it('refuse those who wait when they are closed', async () => {
    const turns = new StartTurns();
    const { begun, run } = makeStarts(turns);
    turns.expect('db');
    turns.plan(dependencies);
    const web = run('web');
    turns.close();
    await expect(web).rejects.toThrow('the engine is shutting down');
    await expect(run('cache')).rejects.toThrow('the engine is shutting down');
    expect(begun).toEqual([]);
  });
});
