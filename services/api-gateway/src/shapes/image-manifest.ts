import type { ImageManifestSummary } from '@flotilla/docker-api';
import { image } from '@flotilla/proto';
import { descriptorShape, platformShape } from './common.js';

const { IMAGE, ATTESTATION } = image.ManifestKind;

/** An entry of `Manifests` in image lists and inspects. */
export function imageManifestShape(summary: image.ManifestSummary): ImageManifestSummary | undefined {
  const { descriptor, kind, available, contentBytes, unpackedBytes, containerIds, attestationFor } = summary;
  if (descriptor === undefined) return undefined;
  const base = {
    ID: descriptor.digest,
    Descriptor: descriptorShape(descriptor),
    Available: available,
    Size: { Content: Number(contentBytes), Total: Number(contentBytes + unpackedBytes) },
  };
  if (kind === ATTESTATION) return { ...base, Kind: 'attestation', AttestationData: { For: attestationFor } };
  if (kind !== IMAGE) return { ...base, Kind: 'unknown' };
  const platform = descriptor.platform ?? { os: '', architecture: '', variant: '', osVersion: '', osFeatures: [] };
  return {
    ...base,
    Kind: 'image',
    ImageData: {
      Platform: platformShape(platform),
      Containers: containerIds,
      Size: { Unpacked: Number(unpackedBytes) },
    },
  };
}
