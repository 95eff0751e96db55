/**
 * On whose behalf a call is made. The gateway decides access; owners only apply `visibility` to list, prune, watch and usage.
 */
export interface Identity {
  /** Name of the authenticated user or client; empty for the engine itself. */
  readonly name: string;
  /** Labels an object must carry to be seen; `null` sees everything. */
  readonly visibility: Readonly<Record<string, string>> | null;
}

/** The engine's own calls, and clients without authentication. */
export const engineIdentity: Identity = { name: '', visibility: null };

/** Header form of an identity. */
export function encodeIdentity(identity: Identity): string {
  return Buffer.from(JSON.stringify({ name: identity.name, visibility: identity.visibility })).toString('base64url');
}

/** Reads `encodeIdentity`'s form; anything else is refused by throwing, never read as "sees everything". */
export function decodeIdentity(header: string): Identity {
  const value: unknown = JSON.parse(Buffer.from(header, 'base64url').toString());
  if (typeof value !== 'object' || value === null) throw new TypeError('identity is not an object');
  const { name, visibility } = value as { name?: unknown; visibility?: unknown };
  if (typeof name !== 'string') throw new TypeError('identity has no name');
  if (visibility === null) return { name, visibility };
  if (typeof visibility !== 'object') throw new TypeError('identity has no visibility');
  const labels: Record<string, string> = {};
  for (const [key, label] of Object.entries(visibility as Record<string, unknown>)) {
    if (typeof label !== 'string') throw new TypeError('a visibility label is not a string');
    labels[key] = label;
  }
  return { name, visibility: labels };
}
