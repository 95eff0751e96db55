import { memoryInUse } from '@flotilla/testkit';
import { describe, expect, it } from 'vitest';
import { AttachReplies } from './attach-replies.js';

const piece = Buffer.from('piece');

function sessionOf(output: AsyncIterable<Uint8Array>) {
  const detached = { count: 0 };
  return { session: { output, position: 'here', detach: () => (detached.count += 1) }, detached };
}

const silence: AsyncIterable<Uint8Array> = {
  [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }),
};

async function* endless(): AsyncGenerator<Uint8Array> {
  for (;;) yield await Promise.resolve(piece);
}

describe('the replies of an attach', () => {
  it('keep nothing of output that has gone through, without any input', async () => {
    const messages = new AttachReplies(sessionOf(endless()).session).messages();
    await messages.next();
    const before = memoryInUse();
    for (let count = 0; count < 100_000; count++) await messages.next();
    expect(memoryInUse() - before).toBeLessThan(8 << 20);
    await messages.return();
  });

  it('keep nothing of input that was taken, without any output', async () => {
    const replies = new AttachReplies(sessionOf(silence).session);
    const messages = replies.messages();
    replies.addTaken(1);
    await messages.next();
    const before = memoryInUse();
    for (let count = 0; count < 100_000; count++) {
      const next = messages.next();
      replies.addTaken(1);
      await next;
    }
    expect(memoryInUse() - before).toBeLessThan(8 << 20);
    replies.addTaken(1);
    expect((await messages.next()).value).toEqual({
      frame: { $case: 'stdinTaken', value: 100_002n },
      position: '',
    });
  });

  it('tell of both while both go on, and ask for one piece at a time', async () => {
    let asked = 0;
    async function* three(): AsyncGenerator<Uint8Array> {
      for (; asked < 3;) {
        asked++;
        yield await Promise.resolve(piece);
      }
    }
    const { session, detached } = sessionOf(three());
    const replies = new AttachReplies(session);
    const seen: (string | undefined)[] = [];
    for await (const { frame } of replies.messages()) {
      seen.push(frame?.$case);
      const outputs = seen.filter((kind) => kind === 'output').length;
      expect(asked).toBeLessThanOrEqual(outputs + 1);
      if (frame?.$case === 'output') replies.addTaken(1);
    }
    expect(seen.filter((kind) => kind === 'output').length).toBe(3);
    expect(seen.filter((kind) => kind === 'stdinTaken').length).toBe(3);
    expect(detached.count).toBe(1);
  });

  it('fail as the output does', async () => {
    async function* failing(): AsyncGenerator<Uint8Array> {
      throw await Promise.resolve(new Error('no more'));
    }
    const { session, detached } = sessionOf(failing());
    await expect(new AttachReplies(session).messages().next()).rejects.toThrow('no more');
    expect(detached.count).toBe(1);
  });
});
