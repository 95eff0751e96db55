import { invalidArgument } from '@flotilla/errors';

type Token =
  | { readonly kind: 'any' }
  | { readonly kind: 'one' }
  | { readonly kind: 'char'; readonly char: string }
  | { readonly kind: 'class'; readonly isNegated: boolean; readonly ranges: readonly (readonly [string, string])[] };

/**
 * A pattern as Go's `path.Match` has it: `*` and `?` stay within a path segment, `[a-z]` and `[^a-z]` are classes, a
 * backslash takes the next character as it is. Matching takes time linear in name times pattern.
 *
 * @throws EngineError `invalidArgument` `syntax error in pattern`.
 */
export function namePattern(pattern: string): (name: string) => boolean {
  const tokens = parse(Array.from(pattern));
  return (name) => matches(tokens, Array.from(name));
}

const syntaxError = () => invalidArgument('syntax error in pattern');

function parse(chars: readonly string[]): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  const next = (): string => {
    const char = chars[at++];
    if (char === undefined) throw syntaxError();
    return char;
  };
  const literal = (): string => {
    const char = next();
    return char === '\\' ? next() : char;
  };
  while (at < chars.length) {
    const char = next();
    if (char === '*') tokens.push({ kind: 'any' });
    else if (char === '?') tokens.push({ kind: 'one' });
    else if (char === '[') {
      const isNegated = chars[at] === '^';
      if (isNegated) at += 1;
      const ranges: [string, string][] = [];
      while (ranges.length === 0 || chars[at] !== ']') {
        if (chars[at] === '-' || chars[at] === ']') throw syntaxError();
        const low = literal();
        let high = low;
        if (chars[at] === '-') {
          at += 1;
          if (chars[at] === '-' || chars[at] === ']') throw syntaxError();
          high = literal();
        }
        ranges.push([low, high]);
      }
      at += 1;
      tokens.push({ kind: 'class', isNegated, ranges });
    } else tokens.push({ kind: 'char', char: char === '\\' ? next() : char });
  }
  return tokens;
}

/** On a mismatch only the last `*` takes one more: those before it could gain nothing, because none crosses a slash. */
function matches(tokens: readonly Token[], name: readonly string[]): boolean {
  let token = 0;
  let star = -1;
  let afterStar = 0;
  for (let at = 0; at < name.length;) {
    const current = tokens[token];
    if (current?.kind === 'any') {
      star = token++;
      afterStar = at;
    } else if (current !== undefined && fits(current, name[at] ?? '')) {
      token += 1;
      at += 1;
    } else if (star >= 0 && name[afterStar] !== '/') {
      afterStar += 1;
      at = afterStar;
      token = star + 1;
    } else return false;
  }
  return tokens.slice(token).every(({ kind }) => kind === 'any');
}

function fits(token: Token, char: string): boolean {
  switch (token.kind) {
    case 'any':
    case 'one':
      return char !== '/';
    case 'char':
      return char === token.char;
    case 'class':
      return token.ranges.some(([low, high]) => low <= char && char <= high) !== token.isNegated;
  }
}
