import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { silentLogger } from '@flotilla/log';
import { describe, expect, it } from 'vitest';
import { adjustOomScore, wantedOomScore } from './oom-score.js';

describe('oom score of the engine', () => {
  it.each([
    [0, undefined, -500],
    [-500, undefined, undefined],
    [-999, undefined, undefined],
    [0, -100, -100],
    [-999, 0, 0],
    [7, 7, undefined],
  ])('from %i with %s is %s', (current, configured, wanted) => {
    expect(wantedOomScore(current, configured)).toBe(wanted);
  });

  it('is written, and a refusal is no failure', () => {
    const directory = mkdtempSync(join(tmpdir(), 'oom-'));
    try {
      const file = join(directory, 'oom_score_adj');
      writeFileSync(file, '0\n');
      adjustOomScore(undefined, silentLogger(), file);
      expect(readFileSync(file, 'utf8')).toBe('-500');
      expect(() => adjustOomScore(undefined, silentLogger(), join(directory, 'missing', 'file'))).not.toThrow();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
