import { createHmac, randomBytes } from 'node:crypto';
import type { common } from '@flotilla/proto';

/** What a client gave for one registry. Kept in memory only, never logged. */
export type Credentials = common.RegistryCredentials;

const salt = randomBytes(32);

/** A name for credentials that tells nothing about them and is good in this process only. */
export function fingerprint(credentials: Credentials | undefined): string {
  if (!hasCredentials(credentials)) return '';
  const { username, password, identityToken, registryToken } = credentials;
  return createHmac('sha256', salt)
    .update(JSON.stringify([username, password, identityToken, registryToken]))
    .digest('hex');
}

export function hasCredentials(credentials: Credentials | undefined): credentials is Credentials {
  return (
    credentials !== undefined &&
    (credentials.username !== '' || credentials.identityToken !== '' || credentials.registryToken !== '')
  );
}

export function basicAuthorization({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
