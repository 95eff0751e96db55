import { expect, it } from 'vitest';
import { completeLogConfig } from './log-sink.js';
import type { ContainerSettings } from './settings.js';

const complete = (given: { type: string; config: Record<string, string> } | undefined, options = {}) =>
  completeLogConfig(given, {
    defaultLogDriver: 'json-file',
    defaultLogOptions: { 'max-size': '1m', 'cache-max-file': '3', ...options },
  } as unknown as ContainerSettings);

it("gives the engine's options to its driver, and those of the cache to every other", () => {
  expect(complete(undefined)).toEqual({ type: 'json-file', config: { 'max-size': '1m', 'cache-max-file': '3' } });
  expect(complete({ type: '', config: { 'max-size': '2m' } }).config['max-size']).toBe('2m');
  expect(complete({ type: 'journald', config: { tag: 't' } })).toEqual({
    ...{ type: 'journald', config: { tag: 't', 'cache-max-file': '3' } },
  });
  expect(complete({ type: 'none', config: {} })).toEqual({ type: 'none', config: {} });
});

it("refuses a container for the engine's wrong options, unless it has its own", () => {
  expect(() => complete(undefined, { 'max-size': 'x' })).toThrow("invalid size: 'x'");
  expect(complete({ type: 'json-file', config: { 'max-size': '1m' } }, { 'max-size': 'x' }).type).toBe('json-file');
});
