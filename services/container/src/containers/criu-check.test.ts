import { describe, expect, it } from 'vitest';
import { requireCriu } from './criu-check.js';

describe('whether criu works', () => {
  it('says that it is not installed', async () => {
    const asked = requireCriu(() => Promise.resolve({ missing: true }));
    await expect(asked).rejects.toThrow('checkpoints need criu, which is not installed');
  });

  it('says why it does not', async () => {
    const output = 'Warn  (a): odd\nError (b): first\nError (c): Could not initialize kernel features detection.\n\n';
    const asked = requireCriu(() => Promise.resolve({ missing: false, exitCode: 1, output }));
    await expect(asked).rejects.toThrow(
      'criu does not work on this machine: criu check: Error (c): Could not initialize kernel features detection.',
    );
  });

  it('says nothing when it does', async () => {
    await requireCriu(() => Promise.resolve({ missing: false, exitCode: 0, output: 'Looks good.\n' }));
  });
});
