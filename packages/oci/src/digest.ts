import { createHash } from 'node:crypto';
import { invalidArgument } from '@flotilla/errors';

/** A checked content digest such as `sha256:<64 hex>`; made only by `parseDigest` and `sha256Of`. */
export type Digest = string & { readonly __brand: 'Digest' };

const form = /^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$/;
const hexLengths: ReadonlyMap<string, number> = new Map([
  ['sha256', 64],
  ['sha384', 96],
  ['sha512', 128],
]);

/**
 * Check a digest.
 *
 * @throws EngineError `invalidArgument` with the phrases of go-digest: `invalid checksum digest format`,
 * `unsupported digest algorithm`, `invalid checksum digest length`.
 */
export function parseDigest(text: string): Digest {
  if (text.length > 256 || !form.test(text)) throw invalidArgument('invalid checksum digest format');
  const colon = text.indexOf(':');
  const length = hexLengths.get(text.slice(0, colon));
  if (length === undefined) throw invalidArgument('unsupported digest algorithm');
  const hex = text.slice(colon + 1);
  if (hex.length !== length) throw invalidArgument('invalid checksum digest length');
  if (!/^[0-9a-f]+$/.test(hex)) throw invalidArgument('invalid checksum digest format');
  return text as Digest;
}

/** Whether `parseDigest` accepts the text. */
export function isDigest(text: string): text is Digest {
  try {
    parseDigest(text);
    return true;
  } catch {
    return false;
  }
}

/** The sha256 digest of the bytes. */
export function sha256Of(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as Digest;
}

/** A digest from the 64 lower-case hex digits that a hash gave. */
export function sha256Digest(hex: string): Digest {
  return parseDigest(`sha256:${hex}`);
}

/** The part after the colon: lower-case hex digits, safe as a file name. */
export function digestHex(digest: Digest): string {
  return digest.slice(digest.indexOf(':') + 1);
}

/** The part before the colon. */
export function digestAlgorithm(digest: Digest): string {
  return digest.slice(0, digest.indexOf(':'));
}

/** The first 12 hex digits of a digest or id, as Docker shows them. */
export function shortId(id: string): string {
  return id.slice(id.indexOf(':') + 1).slice(0, 12);
}
