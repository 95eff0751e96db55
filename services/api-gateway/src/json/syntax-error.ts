/**
 * Why a text is no JSON, in the words of Go's encoding/json: what dockerd prints after `invalid JSON: `.
 *
 * Only run on texts that `JSON.parse` refused.
 * @returns `trailing` when one whole value is followed by something else, `empty` when there is only white space
 */
export function describeJsonError(
  text: string,
): { reason: 'trailing' | 'empty' } | { reason: 'syntax'; message: string } {
  const scanner = new Scanner(text);
  if (scanner.atEnd()) return { reason: 'empty' };
  try {
    scanner.value('looking for beginning of value');
  } catch (error) {
    if (error instanceof SyntaxError) return { reason: 'syntax', message: error.message };
    // The stack may end before Go's limit does.
    if (error instanceof RangeError) return { reason: 'syntax', message: 'exceeded max depth' };
    throw error;
  }
  return { reason: 'trailing' };
}

const MAX_DEPTH = 10_000;
const ESCAPES = '"\\/bfnrt';

class Scanner {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  atEnd(): boolean {
    while (/[ \t\r\n]/.test(this.#peek())) this.#at++;
    return this.#at >= this.#text.length;
  }

  value(context: string): void {
    if (++this.#depth > MAX_DEPTH) throw new SyntaxError('exceeded max depth');
    const char = this.#token();
    if (char === '{') this.#object();
    else if (char === '[') this.#array();
    else if (char === '"') this.#string();
    else if (char === '-' || isDigit(char)) this.#number();
    else if (char === 't') this.#literal('true');
    else if (char === 'f') this.#literal('false');
    else if (char === 'n') this.#literal('null');
    else this.#fail(context);
    this.#depth--;
  }

  #object(): void {
    this.#at++;
    if (this.#token() === '}') {
      this.#at++;
      return;
    }
    for (;;) {
      if (this.#token() !== '"') this.#fail('looking for beginning of object key string');
      this.#string();
      if (this.#token() !== ':') this.#fail('after object key');
      this.#at++;
      this.value('looking for beginning of value');
      const next = this.#token();
      if (next !== ',' && next !== '}') this.#fail('after object key:value pair');
      this.#at++;
      if (next === '}') return;
    }
  }

  #array(): void {
    this.#at++;
    if (this.#token() === ']') {
      this.#at++;
      return;
    }
    for (;;) {
      this.value('looking for beginning of value');
      const next = this.#token();
      if (next !== ',' && next !== ']') this.#fail('after array element');
      this.#at++;
      if (next === ']') return;
    }
  }

  #string(): void {
    this.#at++;
    for (;;) {
      const char = this.#need();
      if (char === '"') {
        this.#at++;
        return;
      }
      if (char < ' ') this.#fail('in string literal');
      this.#at++;
      if (char !== '\\') continue;
      const escape = this.#need();
      if (escape === 'u') {
        this.#at++;
        for (let digit = 0; digit < 4; digit++) {
          if (!/[0-9a-f]/i.test(this.#need())) this.#fail('in \\u hexadecimal character escape');
          this.#at++;
        }
      } else if (ESCAPES.includes(escape)) this.#at++;
      else this.#fail('in string escape code');
    }
  }

  #number(): void {
    if (this.#peek() === '-') {
      this.#at++;
      if (!isDigit(this.#need())) this.#fail('in numeric literal');
    }
    if (this.#peek() === '0') this.#at++;
    else this.#digits();
    if (this.#peek() === '.') {
      this.#at++;
      if (!isDigit(this.#need())) this.#fail('after decimal point in numeric literal');
      this.#digits();
    }
    if (/[eE]/.test(this.#peek())) {
      this.#at++;
      if (/[+-]/.test(this.#need())) this.#at++;
      if (!isDigit(this.#need())) this.#fail('in exponent of numeric literal');
      this.#digits();
    }
  }

  #digits(): void {
    while (isDigit(this.#peek())) this.#at++;
  }

  #literal(word: string): void {
    for (const expected of word) {
      if (this.#need() !== expected) this.#fail(`in literal ${word} (expecting '${expected}')`);
      this.#at++;
    }
  }

  #peek(): string {
    return this.#text.charAt(this.#at);
  }

  #need(): string {
    if (this.#at >= this.#text.length) throw new SyntaxError('unexpected EOF');
    return this.#peek();
  }

  #token(): string {
    this.atEnd();
    return this.#need();
  }

  #fail(context: string): never {
    throw new SyntaxError(
      `invalid character ${quote(String.fromCodePoint(this.#text.codePointAt(this.#at) ?? 0))} ${context}`,
    );
  }
}

const isDigit = (char: string): boolean => char >= '0' && char <= '9' && char !== '';

function quote(char: string): string {
  if (char === "'") return `'\\''`;
  if (char === '"') return `'"'`;
  return `'${JSON.stringify(char).slice(1, -1)}'`;
}
