import { createCipheriv, createDecipheriv, createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { invalidArgument, messageOf } from '@flotilla/errors';
import type { Credentials } from '../upstream/credentials.js';
import { OciError } from './oci-error.js';

const minTokenLength = 16;
const passSeconds = 300;
const nonceBytes = 12;
const tagBytes = 16;

/**
 * Lets requests in and tells whose credentials go on to the registry behind.
 *
 * Clients ask `/v2/` once how to authenticate, before it is known which registry they want. Without a token of its own the door
 * therefore plays a token server: it gives everybody a pass, which holds the credentials that were shown for it (or none)
 * encrypted with a key of this process. Stock clients do all this by themselves, with and without credentials.
 */
export class FrontDoor {
  readonly #token: Buffer | undefined;
  readonly #key = randomBytes(32);

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
   * Credentials for the registry behind: those of the pass, or of a Basic header. Where a token guards the door, Authorization is
   * spent on it (`Bearer TOKEN`, or as the password of any user, which `docker login` can say), and registries are asked
   * anonymously.
   *
   * @throws OciError UNAUTHORIZED, DENIED
   */
  admit(request: IncomingMessage): Credentials | undefined {
    refusePages(request);
    const header = request.headers.authorization;
    const basic = readBasic(header);
    const bearer = /^bearer +(\S+)$/i.exec(header ?? '')?.[1];
    if (this.#token === undefined) return bearer === undefined ? basic : this.#readPass(bearer, request);
    if (!timingSafeEqual(hash(bearer ?? basic?.password ?? ''), this.#token)) {
      throw new OciError(401, 'UNAUTHORIZED', 'a token is required', this.challenge(request));
    }
    return undefined;
  }

  /** Whether `GET /token` is answered, and `GET /v2/` asks for it. */
  get givesPasses(): boolean {
    return this.#token === undefined;
  }

  /** The answer to `GET /token`. */
  givePass(request: IncomingMessage): { token: string; access_token: string; expires_in: number } {
    refusePages(request);
    const nonce = randomBytes(nonceBytes);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonce);
    const { username = '', password = '' } = readBasic(request.headers.authorization) ?? {};
    const text = JSON.stringify([Date.now() + passSeconds * 1000, username, password]);
    const sealed = Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]);
    const token = sealed.toString('base64url');
    return { token, access_token: token, expires_in: passSeconds };
  }

  /** Header that tells how to get in. */
  challenge({ headers, socket }: IncomingMessage): Readonly<Record<string, string>> {
    if (this.#token !== undefined) return { 'www-authenticate': 'Basic realm="flotilla"' };
    const host = /^[\w.:[\]-]{1,255}$/.exec(headers.host ?? '')?.[0] ?? 'localhost';
    const scheme = 'encrypted' in socket ? 'https' : 'http';
    return { 'www-authenticate': `Bearer realm="${scheme}://${host}/token",service="flotilla"` };
  }

  #readPass(pass: string, request: IncomingMessage): Credentials | undefined {
    try {
      const sealed = Buffer.from(pass, 'base64url');
      const end = sealed.length - tagBytes;
      const cipher = createDecipheriv('aes-256-gcm', this.#key, sealed.subarray(0, nonceBytes), {
        authTagLength: tagBytes,
      });
      cipher.setAuthTag(sealed.subarray(end));
      const text = Buffer.concat([cipher.update(sealed.subarray(nonceBytes, end)), cipher.final()]).toString('utf8');
      const [until, username, password] = JSON.parse(text) as [number, string, string];
      if (until > Date.now()) return username === '' ? undefined : { ...nobody, username, password };
    } catch {
      // Of another process, or made up.
    }
    throw new OciError(401, 'UNAUTHORIZED', 'the token is not valid any more', this.challenge(request));
  }
}

/** Only browsers send these: a page must not reach what listens on loopback. */
function refusePages({ headers }: IncomingMessage): void {
  if (headers.origin !== undefined || headers['sec-fetch-site'] !== undefined) {
    throw new OciError(403, 'DENIED', 'requests of web pages are not served');
  }
}

const hash = (text: string): Buffer => createHash('sha256').update(text).digest();

const nobody: Credentials = { username: '', password: '', identityToken: '', registryToken: '', serverAddress: '' };

function readBasic(header = ''): Credentials | undefined {
  const value = /^basic +(\S+)$/i.exec(header)?.[1] ?? '';
  const text = Buffer.from(value, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  return colon < 1 ? undefined : { ...nobody, username: text.slice(0, colon), password: text.slice(colon + 1) };
}
