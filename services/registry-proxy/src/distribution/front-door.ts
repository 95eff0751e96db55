import { createHash, timingSafeEqual } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { invalidArgument, messageOf } from '@flotilla/errors';
import type { Credentials } from '../upstream/credentials.js';
import { OciError } from './oci-error.js';

const minTokenLength = 16;

/** Lets requests in and tells whose credentials go on to the registry behind. */
export class FrontDoor {
  readonly #token: Buffer | undefined;

  private constructor(token: string | undefined) {
    this.#token = token === undefined ? undefined : hash(token);
  }

  /** @throws EngineError `invalidArgument` for a token file that others may read, or with a token that is too short. */
  static async open(tokenFile: string | undefined): Promise<FrontDoor> {
    if (tokenFile === undefined) return new FrontDoor(undefined);
    const name = `registry-listen.token-file ${tokenFile}`;
    let token: string;
    let mode: number;
    try {
      ({ mode } = await stat(tokenFile));
      token = (await readFile(tokenFile, 'utf8')).trim();
    } catch (error) {
      throw invalidArgument(`${name}: ${messageOf(error)}`, { cause: error });
    }
    if ((mode & 0o077) !== 0) throw invalidArgument(`${name}: others than its owner can read it: chmod 0600`);
    if (token.length < minTokenLength) throw invalidArgument(`${name}: shorter than ${minTokenLength} characters`);
    return new FrontDoor(token);
  }

  /**
   * Credentials for the registry behind. Where a token guards the door, Authorization is spent on it (`Bearer TOKEN`, or as the
   * password of any user, which `docker login` can say), and registries are asked anonymously.
   *
   * @throws OciError UNAUTHORIZED, DENIED
   */
  admit({ headers }: IncomingMessage): Credentials | undefined {
    // Only browsers send these: a page must not reach what listens on loopback.
    if (headers.origin !== undefined || headers['sec-fetch-site'] !== undefined) {
      throw new OciError(403, 'DENIED', 'requests of web pages are not served');
    }
    const given = readAuthorization(headers.authorization);
    if (this.#token === undefined) return given;
    const shown = given === undefined ? '' : given.registryToken || given.password;
    if (!timingSafeEqual(hash(shown), this.#token)) {
      throw new OciError(401, 'UNAUTHORIZED', 'a token is required', { 'www-authenticate': 'Basic realm="flotilla"' });
    }
    return undefined;
  }
}

const hash = (text: string): Buffer => createHash('sha256').update(text).digest();

function readAuthorization(header = ''): Credentials | undefined {
  const none = { username: '', password: '', identityToken: '', registryToken: '', serverAddress: '' };
  const [, scheme = '', value = ''] = /^(\S+) +(\S+)$/.exec(header) ?? [];
  if (scheme.toLowerCase() === 'bearer') return { ...none, registryToken: value };
  if (scheme.toLowerCase() !== 'basic') return undefined;
  const text = Buffer.from(value, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 1 ? undefined : { ...none, username: text.slice(0, colon), password: text.slice(colon + 1) };
}
