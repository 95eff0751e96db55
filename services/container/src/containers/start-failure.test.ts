import { conflict } from '@flotilla/errors';
import { describe, expect, it } from 'vitest';
import { RuntimeFailure } from '../runtime/runtime.js';
import { describeStartFailure } from './start-failure.js';

describe('describeStartFailure', () => {
  it.each([
    [127, 127, 'invalidArgument'],
    [126, 126, 'invalidArgument'],
    [125, 128, 'internal'],
  ] as const)('shows a runtime failure %i as exit code %i', (given, exitCode, kind) => {
    const shown = describeStartFailure(new RuntimeFailure(given, 'OCI runtime create failed: x'));
    expect(shown).toMatchObject({ exitCode, message: 'OCI runtime create failed: x' });
    expect(shown.error.kind).toBe(kind);
  });

  it('passes on what a peer said', () => {
    const error = conflict('port is already allocated');
    expect(describeStartFailure(error)).toEqual({ exitCode: 128, message: 'port is already allocated', error });
  });
});
