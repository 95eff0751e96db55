import { invalidArgument } from '@flotilla/errors';

/** An Engine API version such as 1.51, kept as `major * 1000 + minor` so that versions compare with `<`. */
export type ApiVersion = number & { readonly __brand: 'ApiVersion' };

/** Make a version from its two numbers. */
export const apiVersion = (major: number, minor: number): ApiVersion => (major * 1000 + minor) as ApiVersion;

/** The newest version this engine speaks: what an unversioned path gets. */
export const MAX_API_VERSION = apiVersion(1, 51);

/** The oldest version this engine can speak. */
export const MIN_API_VERSION = apiVersion(1, 24);

/** The text form, for example `1.51`. */
export const formatApiVersion = (version: ApiVersion): string => `${Math.floor(version / 1000)}.${version % 1000}`;

/**
 * Parse `1.51` or `v1.51`. A missing minor number counts as 0, as in Docker's own comparison.
 * @throws EngineError `invalidArgument` when the text is no version.
 */
export function parseApiVersion(text: string): ApiVersion {
  const match = /^v?(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d+)*$/.exec(text);
  if (match === null) throw invalidArgument(`invalid API version: ${text}`);
  return apiVersion(Number(match[1]), Number(match[2] ?? 0));
}

/**
 * The version of a request, checked against the range that the engine serves.
 * The sentences are those of dockerd: clients print them as they are.
 * @throws EngineError `invalidArgument` when the version is outside the range.
 */
export function negotiateApiVersion(
  text: string,
  min: ApiVersion = MIN_API_VERSION,
  max: ApiVersion = MAX_API_VERSION,
): ApiVersion {
  const version = parseApiVersion(text);
  if (version < min) {
    throw invalidArgument(
      `client version ${text} is too old. Minimum supported API version is ${formatApiVersion(min)}, please upgrade your client to a newer version`,
    );
  }
  if (version > max) {
    throw invalidArgument(
      `client version ${text} is too new. Maximum supported API version is ${formatApiVersion(max)}`,
    );
  }
  return version;
}
