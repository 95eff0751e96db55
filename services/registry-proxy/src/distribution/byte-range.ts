/** Bytes `start` to before `end` of something. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Read a Range header (RFC 9110 section 14.2) against a size: one range of bytes, `a-b`, `a-` or `-n`. Anything else counts as no
 * header, so that all is sent; undefined when nothing of it is there (416).
 */
export function readRange(header: string | undefined, size: number): ByteRange | undefined {
  const [, first = '', last = ''] = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? '') ?? [];
  if (first === '' && last === '') return { start: 0, end: size };
  if (first === '')
    return last === '0' || size === 0 ? undefined : { start: Math.max(0, size - Number(last)), end: size };
  const start = Number(first);
  if (last !== '' && Number(last) < start) return { start: 0, end: size };
  return start >= size ? undefined : { start, end: last === '' ? size : Math.min(Number(last) + 1, size) };
}
