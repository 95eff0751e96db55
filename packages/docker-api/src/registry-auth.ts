import { invalidArgument } from '@flotilla/errors';

/** Credentials for a registry as clients send them: in `X-Registry-Auth`, `X-Registry-Config` and the body of `POST /auth`. */
export interface RegistryAuth {
  readonly username: string;
  readonly password: string;
  /** Token that stands in for the password; wins over it. */
  readonly identityToken: string;
  /** Bearer token sent as it is; wins over everything. */
  readonly registryToken: string;
  readonly serverAddress: string;
}

/** No credentials: what an absent or empty header means. */
export const ANONYMOUS: RegistryAuth = {
  username: '',
  password: '',
  identityToken: '',
  registryToken: '',
  serverAddress: '',
};

const FIELDS = new Set(['username', 'password', 'auth', 'identitytoken', 'registrytoken', 'serveraddress']);

const invalid = (reason: string, cause?: unknown): Error =>
  invalidArgument(`invalid X-Registry-Auth header: ${reason}`, { cause });

/**
 * Decode the `X-Registry-Auth` header: base64 (URL or standard alphabet, padded or not) of a JSON object.
 * @throws EngineError `invalidArgument` when it is no such thing. Pull and push ignore that, as dockerd does.
 */
export function decodeRegistryAuth(header: string | undefined): RegistryAuth {
  if (header === undefined || header === '') return ANONYMOUS;
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(header)) throw invalid('must be a valid base64url-encoded string');
  const text = Buffer.from(header, 'base64url').toString('utf8');
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch (cause) {
    throw invalid('must be a valid JSON object', cause);
  }
  return registryAuthFrom(raw);
}

/**
 * Read one credentials object of a JSON document; keys are matched without regard to case.
 * The older `auth` field (base64 of `user:password`) counts when no user name is given.
 * @throws EngineError `invalidArgument` for anything but an object, or a field that is no string; other keys are ignored.
 */
export function registryAuthFrom(raw: unknown): RegistryAuth {
  if (raw === null || raw === undefined) return ANONYMOUS;
  if (typeof raw !== 'object' || Array.isArray(raw)) throw invalid('must be a valid JSON object');
  const fields = new Map<string, string>();
  for (const [key, value] of Object.entries(raw)) {
    const name = key.toLowerCase();
    if (value === null || !FIELDS.has(name)) continue;
    if (typeof value !== 'string') throw invalid(`${name} must be a string`);
    fields.set(name, value);
  }
  let username = fields.get('username') ?? '';
  let password = fields.get('password') ?? '';
  const auth = fields.get('auth');
  if (username === '' && auth !== undefined && auth !== '') {
    const pair = Buffer.from(auth, 'base64').toString('utf8');
    const colon = pair.indexOf(':');
    if (colon > 0) {
      username = pair.slice(0, colon);
      password = pair.slice(colon + 1);
    }
  }
  return {
    username,
    password,
    identityToken: fields.get('identitytoken') ?? '',
    registryToken: fields.get('registrytoken') ?? '',
    serverAddress: fields.get('serveraddress') ?? '',
  };
}
