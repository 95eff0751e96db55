/** One way in which a registry wants to be authenticated. */
export interface Challenge {
  /** Lower case, e.g. `basic`, `bearer`. */
  readonly scheme: string;
  readonly parameters: ReadonlyMap<string, string>;
}

const maxHeader = 16 * 1024;

/** Read WWW-Authenticate (RFC 9110 section 11.6.1): several challenges may stand in one header. Malformed parts are skipped. */
export function parseChallenges(header: string): Challenge[] {
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  // A scheme, or name=value with value a token or a quoted string.
  const part = /([A-Za-z0-9!#$%&'*+.^_`|~-]{1,64})(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|(?=\s|,|$))/gy;
  const text = header.slice(0, maxHeader);
  const space = /[\s,]+/y;
  let at = 0;
  while (at < text.length) {
    space.lastIndex = at;
    at += space.exec(text)?.[0].length ?? 0;
    part.lastIndex = at;
    const match = part.exec(text);
    if (match === null) {
      at += 1;
      continue;
    }
    at = part.lastIndex;
    const [, name = '', quoted, plain] = match;
    const value = quoted?.replaceAll(/\\(.)/g, '$1') ?? plain;
    if (value === undefined) challenges.push({ scheme: name.toLowerCase(), parameters: new Map() });
    else challenges.at(-1)?.parameters.set(name.toLowerCase(), value);
  }
  return challenges;
}
