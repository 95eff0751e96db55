import { describe, expect, it } from 'vitest';
import { EngineError, conflict, errorKinds, isEngineError, messageOf, notFound } from './index.js';

describe('EngineError', () => {
  it('keeps kind, message and cause', () => {
    const cause = new Error('ENOENT');
    const error = notFound('No such container: web', { cause });
    expect(error).toBeInstanceOf(Error);
    expect(error.kind).toBe('notFound');
    expect(error.message).toBe('No such container: web');
    expect(error.cause).toBe(cause);
  });

  it('is recognised by kind', () => {
    expect(isEngineError(conflict('busy'))).toBe(true);
    expect(isEngineError(conflict('busy'), 'conflict')).toBe(true);
    expect(isEngineError(conflict('busy'), 'notFound')).toBe(false);
    expect(isEngineError(new Error('busy'))).toBe(false);
  });

  it('lists every kind once', () => {
    expect(new Set(errorKinds).size).toBe(errorKinds.length);
    for (const kind of errorKinds) expect(new EngineError(kind, 'x').kind).toBe(kind);
  });

  it('reads the message of anything thrown', () => {
    expect(messageOf(new Error('a'))).toBe('a');
    expect(messageOf('b')).toBe('b');
  });
});
