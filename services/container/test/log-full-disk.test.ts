import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeTempDir, waitFor, type TempDir } from '@flotilla/testkit';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ENCODER_OUTPUT_BYTES } from '../src/logs/files/entry-encoder.js';
import { LiveLogs } from '../src/logs/files/live-logs.js';
import { readLog } from '../src/logs/files/log-file-reader.js';
import { HEADROOM_BYTES, LogFileWriter } from '../src/logs/files/log-file-writer.js';

describe.skipIf(process.getuid?.() !== 0)('a log on a disk that is full (needs root)', () => {
  let directory: TempDir;
  let path: string;
  beforeEach(async () => {
    directory = await makeTempDir('logs');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'flotilla-logs', directory.path]);
    path = join(directory.path, 'c.log');
  });
  afterEach(async () => {
    execFileSync('umount', ['-l', directory.path]);
    await directory[Symbol.asyncDispose]();
  });

  it.each(['json-file', 'local'] as const)(
    '%s loses lines and no order, and goes on when there is room',
    async (driver) => {
      const filling = join(directory.path, 'filling');
      writeFileSync(filling, Buffer.alloc(30 << 20));
      const log = { driver, path, maxSizeBytes: 300_000, maxFiles: 20, compress: true };
      const writer = new LogFileWriter(log, true, Buffer.alloc(ENCODER_OUTPUT_BYTES));
      let next = 1;
      const write = (): void => {
        const text = Array.from({ length: 500 }, () => `${next++}\n`).join('');
        const bytes = Buffer.concat([Buffer.alloc(HEADROOM_BYTES), Buffer.from(text)]);
        writer.append(1, bytes, HEADROOM_BYTES, bytes.length);
      };
      while (writer.lostBytes === 0) write();
      const lines = async (): Promise<number[]> => {
        const options = {
          stdout: true,
          stderr: true,
          terminal: true,
          timestamps: false,
          details: false,
          follow: false,
        };
        let text = '';
        for await (const { frames } of readLog(log, options, new LiveLogs(), new AbortController().signal)) {
          text += Buffer.from(frames).toString();
        }
        return text.split('\n').slice(0, -1).map(Number);
      };
      const full = await lines();
      expect(full.length).toBeGreaterThan(5000);
      expect(full.every((line, at) => at === 0 || line === (full[at - 1] ?? 0) + 1)).toBe(true);
      rmSync(filling);
      await waitFor(
        () => {
          write();
          return writer.lostBytes === 0;
        },
        { what: 'the log to be written again' },
      );
      const last = next - 1;
      const after = await lines();
      expect(after.at(-1)).toBe(last);
      expect(after.every((line, at) => at === 0 || line > (after[at - 1] ?? 0))).toBe(true);
      writer.close(true);
      await waitFor(() => !readdirSync(directory.path).some((name) => name.endsWith('.compressing')), {
        what: 'the end of compressing',
      });
      expect(existsSync(`${path}.next`)).toBe(false);
    },
  );
});
