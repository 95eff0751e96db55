import { invalidArgument } from '@flotilla/errors';

const NAMED: Readonly<Record<string, number>> = {
  del: 127,
  'ctrl-@': 0,
  'ctrl-[': 27,
  'ctrl-\\': 28,
  'ctrl-]': 29,
  'ctrl-^': 30,
  'ctrl-_': 31,
};

/** ctrl-p, ctrl-q: what detaches when a client names no keys. */
export const DEFAULT_DETACH_KEYS: Uint8Array = Uint8Array.of(16, 17);

/**
 * Parse detach keys such as `ctrl-p,ctrl-q` or `a,ctrl-]` to the bytes that a terminal sends for them.
 * An empty text means the default.
 * @throws EngineError `invalidArgument` for an unknown key.
 */
export function parseDetachKeys(text: string): Uint8Array {
  if (text === '') return DEFAULT_DETACH_KEYS;
  return Uint8Array.from(text.split(','), (key) => {
    if (key.length === 1) return key.charCodeAt(0);
    const letter = /^ctrl-([a-z])$/i.exec(key)?.[1];
    const code = letter === undefined ? NAMED[key.toLowerCase()] : letter.toLowerCase().charCodeAt(0) - 96;
    if (code === undefined) throw invalidArgument(`Unknown character: '${key}'`);
    return code;
  });
}
