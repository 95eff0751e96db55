import * as z from 'zod/mini';
import { invalidArgument } from '@flotilla/errors';

/**
 * Check `value` against `schema`.
 *
 * @throws EngineError `invalidArgument`: one sentence that starts with `source` and names the first wrong key.
 */
export function parse<T extends z.ZodMiniType>(schema: T, value: unknown, source: string): z.output<T> {
  const result = z.safeParse(schema, value);
  if (result.success) return result.data;
  throw invalidArgument(`${source}: ${describeIssue(result.error.issues[0])}`, { cause: result.error });
}

function describeIssue(issue: z.core.$ZodIssue | undefined): string {
  if (issue === undefined) return 'invalid';
  const key = issue.path.join('.');
  if (issue.code === 'unrecognized_keys') {
    const names = issue.keys.map((name) => (key === '' ? name : `${key}.${name}`));
    return `unknown ${names.length === 1 ? 'key' : 'keys'} ${names.join(', ')}`;
  }
  if (issue.code === 'invalid_type') return `${key}: expected ${issue.expected}`;
  if (issue.code === 'invalid_value')
    return `${key}: expected ${issue.values.map((each) => String(each)).join(' or ')}`;
  return `${key}: ${issue.message === 'Invalid input' ? 'invalid value' : issue.message}`;
}

/** Parse a JSON text that must hold an object. @throws EngineError `invalidArgument` */
export function parseJsonObject(text: string, source: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    throw invalidArgument(`${source}: not valid JSON: ${(error as Error).message}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidArgument(`${source}: expected a JSON object`);
  }
  return value as Record<string, unknown>;
}
