import { invalidArgument } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';
import { isDigest, parseDigest } from './digest.js';
import type { Digest } from './digest.js';

/** An image name with its registry filled in: `docker.io/library/busybox`, a tag, a digest, both or neither. */
export interface Reference {
  /** Registry host with port, e.g. `docker.io`, `127.0.0.1:5000`, `[::1]:5000`. */
  readonly domain: string;
  /** Repository inside the registry, e.g. `library/busybox`. */
  readonly path: string;
  readonly tag?: string;
  readonly digest?: Digest;
}

/** What a user may type where an image is expected: a name, or an image id in full. */
export type AnyReference =
  { readonly kind: 'id'; readonly id: Digest } | { readonly kind: 'name'; readonly reference: Reference };

export const defaultDomain = 'docker.io';
const legacyDefaultDomain = 'index.docker.io';
const officialPrefix = 'library/';
export const defaultTag = 'latest';
const maxNameLength = 255;
// Longer than any valid reference (name 255, domain 253 and port, tag 128, digest 256): keeps the regular expressions off absurd input.
const maxReferenceLength = 1024;

// The grammar of distribution/reference (regexp.go).
const domainComponent = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])';
const domainPattern = `(?:${domainComponent}(?:\\.${domainComponent})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const pathComponent = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const pathPattern = `${pathComponent}(?:/${pathComponent})*`;
const tagPattern = '[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}';
const digestPattern = '[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}';
const referenceForm = new RegExp(
  `^(?:(${domainPattern})/)?(${pathPattern})(?::(${tagPattern}))?(?:@(${digestPattern}))?$`,
);
const tagForm = new RegExp(`^${tagPattern}$`);
const identifierForm = /^[a-f0-9]{64}$/;

const invalidFormat = (): EngineError => invalidArgument('invalid reference format');

/**
 * Parse an image name as Docker does: `busybox` becomes `docker.io/library/busybox`. No tag is added.
 *
 * @throws EngineError `invalidArgument` with the phrases of distribution/reference.
 */
export function parseReference(text: string): Reference {
  if (identifierForm.test(text)) {
    throw invalidArgument(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  if (text.length > maxReferenceLength) throw invalidFormat();
  const [domain, rest] = splitDomain(text);
  const colon = rest.indexOf(':');
  const remote = colon < 0 ? rest : rest.slice(0, colon);
  if (remote.toLowerCase() !== remote) {
    throw invalidArgument(`invalid reference format: repository name (${remote}) must be lowercase`);
  }
  const match = referenceForm.exec(`${domain}/${rest}`);
  if (match === null) throw invalidFormat();
  // The domain group always takes part: the text has one in front.
  const [, matchedDomain, path, tag, digest] = match;
  if (matchedDomain === undefined || path === undefined) throw invalidFormat();
  if (path.length > maxNameLength) {
    throw invalidArgument(`repository name must not be more than ${maxNameLength} characters`);
  }
  return {
    domain: matchedDomain,
    path,
    ...(tag === undefined ? {} : { tag }),
    ...(digest === undefined ? {} : { digest: parseDigest(digest) }),
  };
}

/** Parse a name or a full image id (64 hex digits, with or without `sha256:`). */
export function parseAnyReference(text: string): AnyReference {
  if (identifierForm.test(text)) return { kind: 'id', id: parseDigest(`sha256:${text}`) };
  if (isDigest(text)) return { kind: 'id', id: text };
  return { kind: 'name', reference: parseReference(text) };
}

function splitDomain(name: string): [domain: string, rest: string] {
  const slash = name.indexOf('/');
  if (slash < 0) return [defaultDomain, officialPrefix + name];
  const first = name.slice(0, slash);
  const rest = name.slice(slash + 1);
  let domain = defaultDomain;
  let remote = name;
  if (first === legacyDefaultDomain) remote = rest;
  else if (first === 'localhost' || /[.:]/.test(first) || first.toLowerCase() !== first) {
    domain = first;
    remote = rest;
  }
  if (domain === defaultDomain && !remote.includes('/')) remote = officialPrefix + remote;
  return [domain, remote];
}

/** `domain/path`, without tag and digest. */
export function repositoryName(reference: Reference): string {
  return `${reference.domain}/${reference.path}`;
}

/** The whole reference in its long form, e.g. `docker.io/library/busybox:latest`. */
export function canonicalString(reference: Reference): string {
  return repositoryName(reference) + suffix(reference);
}

/** The repository as users see it: `docker.io/library/busybox` is `busybox`. */
export function familiarName(reference: Reference): string {
  if (reference.domain !== defaultDomain) return repositoryName(reference);
  const { path } = reference;
  // `docker.io/library/x/y` cannot be shortened to `x/y`.
  return path.startsWith(officialPrefix) && !path.slice(officialPrefix.length).includes('/')
    ? path.slice(officialPrefix.length)
    : path;
}

/** The whole reference as users see it, e.g. `busybox:latest`. */
export function familiarString(reference: Reference): string {
  return familiarName(reference) + suffix(reference);
}

function suffix({ tag, digest }: Reference): string {
  return (tag === undefined ? '' : `:${tag}`) + (digest === undefined ? '' : `@${digest}`);
}

/** The repository alone. */
export function trimReference({ domain, path }: Reference): Reference {
  return { domain, path };
}

/** @throws EngineError `invalidArgument` `invalid tag format`. */
export function withTag({ domain, path }: Reference, tag: string): Reference {
  if (!tagForm.test(tag)) throw invalidArgument('invalid tag format');
  return { domain, path, tag };
}

export function withDigest({ domain, path }: Reference, digest: Digest): Reference {
  return { domain, path, digest };
}

/** The repository with a tag or a digest, whichever the text is, as `POST /images/create` takes it. */
export function withTagOrDigest(reference: Reference, tagOrDigest: string): Reference {
  return isDigest(tagOrDigest) ? withDigest(reference, tagOrDigest) : withTag(reference, tagOrDigest);
}

/** The reference itself, or with tag `latest` if it has neither tag nor digest. */
export function withDefaultTag(reference: Reference): Reference {
  return isNameOnly(reference) ? withTag(reference, defaultTag) : reference;
}

/** Whether it has neither tag nor digest. */
export function isNameOnly(reference: Reference): boolean {
  return reference.tag === undefined && reference.digest === undefined;
}
