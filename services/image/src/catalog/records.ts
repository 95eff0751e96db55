import type { Digest } from '@flotilla/oci';

/** A blob of the content store. */
export interface BlobRecord {
  readonly digest: Digest;
  readonly size: number;
  readonly mediaType: string;
}

export interface LayerRecord {
  readonly diffId: Digest;
  /** Names the unpacked layer: this one and all below. */
  readonly chainId: Digest;
  /** The compressed tar. */
  readonly blob: BlobRecord;
}

/** One image, by its id. */
export interface ImageRecord {
  /** Digest of the configuration. */
  readonly id: Digest;
  /** The configuration's text, for a start without reading every blob. */
  readonly configJson: string;
  /** Manifest that it came with, or was given. */
  readonly manifest: BlobRecord;
  /** Index through which it was pulled. */
  readonly index: BlobRecord | null;
  /** Lowest first. */
  readonly layers: readonly LayerRecord[];
  /** Uncompressed bytes of all layers. */
  readonly sizeBytes: number;
  /** Image that it was made from here, or empty. */
  readonly parent: Digest | '';
  readonly addedAt: string;
  /** RFC 3339, empty if it was never tagged. */
  readonly lastTaggedAt: string;
}

/** A name for an image; the key is the canonical reference. */
export interface ReferenceRecord {
  /** The one that was named last. */
  readonly imageId: Digest;
  /** Images of other platforms that came through the same index, in the order in which they were named. */
  readonly siblings?: readonly Digest[];
}

/** A container's claim on an image and a writable layer; the key is the container id. */
export interface LeaseRecord {
  readonly containerId: string;
  readonly containerName: string;
  readonly imageId: Digest;
  /** Lowest first. */
  readonly chainIds: readonly Digest[];
  readonly createdAt: string;
  /** How its root file system is made; absent: overlay2. */
  readonly driver?: 'vfs';
  /** Further images, whose content it mounts, in the order in which they were asked for. */
  readonly mounts?: readonly LeasedImage[];
}

/** One image of a lease. */
export interface LeasedImage {
  readonly imageId: Digest;
  /** Lowest first. */
  readonly chainIds: readonly Digest[];
}

/** The images that a lease keeps: the container's own first, then those that it mounts. */
export function leasedImages(lease: LeaseRecord): readonly LeasedImage[] {
  return [lease, ...(lease.mounts ?? [])];
}

/** The layers that a lease keeps; one may occur several times. */
export function leasedLayers(lease: LeaseRecord): Digest[] {
  return leasedImages(lease).flatMap(({ chainIds }) => chainIds);
}
