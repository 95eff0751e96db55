import { invalidArgument, notFound } from '@flotilla/errors';
import { formatPlatform, hostPlatform, mediaTypes, parseManifest, selectManifests } from '@flotilla/oci';
import type { Digest, Manifest, Platform, Reference } from '@flotilla/oci';
import type { Credentials, RegistrySource, SourceManifest } from './registry-source.js';

/** A manifest chosen for a platform, with the way that led to it. */
export interface SelectedImage {
  readonly manifest: Manifest;
  readonly manifestBytes: Buffer;
  readonly manifestDigest: Digest;
  readonly index: SourceManifest | undefined;
  /** Digests of everything that the index lists, at whatever depth was looked at. */
  readonly indexManifests: ReadonlySet<Digest>;
  /** What the reference itself stands for: shown as `Digest:`, kept as name@digest. */
  readonly referenceDigest: Digest;
  readonly warnings: readonly string[];
}

/** Indexes inside indexes that are followed. */
const maxDepth = 3;
const imageConfigTypes: readonly string[] = [
  mediaTypes.dockerConfig,
  mediaTypes.ociConfig,
  'application/octet-stream',
  '',
];

/**
 * Follow a tag or digest to the manifest of one image.
 *
 * @throws EngineError `notFound` `no matching manifest for ... in the manifest list entries`; `invalidArgument` for
 * schema 1, unknown types and artifacts that are no images.
 */
export async function selectImage(
  source: RegistrySource,
  repository: Reference,
  target: string,
  wanted: Platform | undefined,
  credentials: Credentials,
  signal: AbortSignal,
): Promise<SelectedImage> {
  const platform = wanted ?? hostPlatform();
  const first = await source.manifest(repository, target, credentials, signal);
  const warnings = [...first.warnings];
  const indexManifests = new Set<Digest>();
  let current = first;
  for (let depth = 0; ; depth += 1) {
    const manifest = parseManifest(current.content, current.mediaType);
    if (manifest.kind === 'manifest') {
      refuseArtifact(manifest);
      return {
        manifest,
        manifestBytes: current.content,
        manifestDigest: current.digest,
        index: current === first ? undefined : first,
        indexManifests,
        referenceDigest: first.digest,
        warnings,
      };
    }
    for (const { digest } of manifest.manifests) indexManifests.add(digest);
    const [best] = selectManifests(manifest, platform);
    if (best === undefined || depth === maxDepth) {
      throw notFound(`no matching manifest for ${formatPlatform(platform)} in the manifest list entries`);
    }
    current = await source.manifest(repository, best.digest, credentials, signal);
    warnings.push(...current.warnings);
  }
}

function refuseArtifact({ config }: Manifest): void {
  if (imageConfigTypes.includes(config.mediaType)) return;
  throw invalidArgument(
    `unsupported media type ${config.mediaType.slice(0, 200)}: the reference is not a container image`,
  );
}
