import { describe, expect, it } from 'vitest';
import type { LogBatch } from '../logs/log-config.js';
import type { OutputListener, OutputSink } from '../logs/log-thread.js';
import type { Run } from './attach-session.js';
import { Streams } from './container-streams.js';
import type { AttachSession } from './runtime.js';

const both = { stdin: false, stdout: true, stderr: true };

/** A sink whose thread answers when the test says so. */
class SlowSink implements OutputSink {
  readonly ended = new Promise<void>(() => undefined);
  readonly listeners: OutputListener[] = [];

  attach(listener: OutputListener): () => void {
    this.listeners.push(listener);
    return () => undefined;
  }

  begin(): void {
    // There is nothing to read.
  }

  finish(): void {
    // Nor an end.
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function makeRun(readLog: Run['readLog'] = noLog): Run & { sink: SlowSink } {
  return { sink: new SlowSink(), stdin: undefined, readLog };
}

async function* noLog(): AsyncGenerator<LogBatch> {
  // Nothing was logged.
}

async function textOf(session: AttachSession): Promise<string> {
  let text = '';
  for await (const bytes of session.output) text += Buffer.from(bytes).toString();
  return text;
}

/** Whether a promise has settled once everything that is due has run. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  void promise.then(() => (settled = true));
  await new Promise((resolve) => setImmediate(resolve));
  return settled;
}

describe('sessions of a container', () => {
  it('are registered at once before a run, and with the thread during one', async () => {
    const streams = new Streams({ terminal: true, openStdin: false, stdinOnce: false });
    expect(await isSettled(streams.attach(both).registered)).toBe(true);
    const run = makeRun();
    streams.begin(run);
    const late = streams.attach(both);
    expect(await isSettled(late.registered)).toBe(false);
    run.sink.listeners[1]?.onAttached('', new Uint8Array(0), '');
    expect(await isSettled(late.registered)).toBe(true);
  });

  it('wait for the next run, whoever still cleans up after the last one', async () => {
    const streams = new Streams({ terminal: true, openStdin: false, stdinOnce: false });
    const first = makeRun();
    streams.begin(first);
    const earlier = streams.attach(both);
    streams.end(first);
    expect(await earlier.ended).toBe('exited');
    const waiting = streams.attach(both);
    streams.end(first);
    expect(await isSettled(waiting.ended)).toBe(false);
    const second = makeRun();
    streams.begin(second);
    const [listener] = second.sink.listeners;
    listener?.onAttached('', new Uint8Array(0), '');
    listener?.onOutput(Buffer.from('second run'), () => undefined, '');
    streams.end(second);
    expect(await textOf(waiting)).toBe('second run');
  });

  it('read the log to its end even when the container is removed meanwhile', async () => {
    let goOn: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (goOn = resolve));
    const run = makeRun(async function* () {
      await held;
      yield { frames: Buffer.from('from the log, '), position: '' };
    });
    const streams = new Streams({ terminal: true, openStdin: false, stdinOnce: false });
    streams.begin(run);
    const session = streams.attach({ ...both, logs: true });
    const text = textOf(session);
    const [listener] = run.sink.listeners;
    listener?.onAttached('', new Uint8Array(0), '');
    listener?.onOutput(Buffer.from('then live'), () => undefined, '');
    streams.end(run);
    streams.detachAll();
    goOn();
    expect(await text).toBe('from the log, then live');
  });
});
