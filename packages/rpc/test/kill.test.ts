import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isEngineError } from '@flotilla/errors';
import { silentLogger } from '@flotilla/log';
import { connect } from '@flotilla/rpc';
import { NoteService } from '../dist/test-service.js';

const program = fileURLToPath(new URL('./victim.mjs', import.meta.url));

describe('kill -9 of a server', () => {
  let dir: string;
  let socket: string;
  let victim: ChildProcess;
  const start = async () => {
    victim = spawn(process.execPath, [program, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
    if (victim.stdout !== null) await once(victim.stdout, 'data');
  };
  const kill = async () => {
    const ended = once(victim, 'exit');
    victim.kill('SIGKILL');
    await ended;
  };
  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'flotilla-kill-'));
    socket = join(dir, 'note.sock');
    await start();
  });
  afterAll(async () => {
    await kill();
    await rm(dir, { recursive: true, force: true });
  });

  it('fails no unary call: all are answered by the next process', async () => {
    const client = connect(NoteService, `unix:${socket}`, { log: silentLogger() });
    let going = true;
    let answered = 0;
    const caller = async (name: string) => {
      for (let i = 0; going; i += 1) {
        const text = `${name}-${i}`;
        expect(await client.one({ text }, { deadlineMs: 10_000 })).toEqual({ text });
        answered += 1;
      }
    };
    const callers = Promise.all(['a', 'b', 'c', 'd', 'e', 'f'].map(caller));
    for (let round = 0; round < 5; round += 1) {
      const before = answered;
      while (answered < before + 50) await client.one({ text: 'more' }, { deadlineMs: 10_000 });
      await kill();
      await start();
    }
    going = false;
    await callers;
    client.close();
    expect(answered).toBeGreaterThan(250);
  });

  it('ends an open stream as unavailable, and the next one works', async () => {
    const client = connect(NoteService, `unix:${socket}`, { log: silentLogger() });
    const stream = client.many({ text: '' });
    await stream.next();
    await kill();
    const restarted = start();
    const error: unknown = await (async () => {
      for await (const _ of stream);
    })().catch((thrown: unknown) => thrown);
    expect(isEngineError(error, 'unavailable')).toBe(true);
    for await (const { text } of client.many({ text: '' })) {
      expect(text).toBe('0');
      break;
    }
    await restarted;
    client.close();
  });
});
