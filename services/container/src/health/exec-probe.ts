import { FrameDecoder } from '@flotilla/docker-api';
import { container } from '@flotilla/proto';
import type { Execs } from '../execs/execs.js';
import type { Probe } from './health-monitor.js';

/** What is kept of a probe's output: moby/moby daemon/health.go, maxOutputLen. */
const maxOutputBytes = 4096;
const killSignal = 9;

/** A probe is an exec like any other, and is killed when its time is over. */
export const execProbe =
  (execs: Execs): Probe =>
  async (containerId, command, signal) => {
    const config = container.ExecConfig.fromPartial({
      cmd: [...command],
      attachStdout: true,
      attachStderr: true,
    });
    const { id } = await execs.create(containerId, config);
    try {
      const started = await execs.start(id, {
        detach: false,
        consoleSize: undefined,
        signal: new AbortController().signal,
      });
      if (started.failure !== undefined) {
        const { exitCode } = await started.ended;
        return { exitCode, output: started.failure };
      }
      const kill = (): void => {
        // It may have ended in this moment.
        execs.kill(id, killSignal).catch(() => undefined);
        started.session?.detach();
      };
      signal.addEventListener('abort', kill, { once: true });
      if (signal.aborted) kill();
      try {
        const output = started.session === undefined ? '' : await collect(started.session.output);
        const { exitCode } = await started.ended;
        signal.throwIfAborted();
        return { exitCode, output };
      } finally {
        signal.removeEventListener('abort', kill);
      }
    } finally {
      await execs.forget(id);
    }
  };

/** Reads everything, so that the process is not held up, and keeps the beginning. */
async function collect(chunks: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new FrameDecoder();
  const kept: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunks) {
    for (const { payload } of decoder.decode(chunk)) {
      const part = payload.subarray(0, Math.max(0, maxOutputBytes - bytes));
      if (part.length > 0) kept.push(Buffer.from(part));
      bytes += payload.length;
    }
  }
  const text = Buffer.concat(kept).toString();
  return bytes > maxOutputBytes ? `${text}...` : text;
}
