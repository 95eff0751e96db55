import { familiarString, normalizePlatform } from '@flotilla/oci';
import type { Timestamp, common, image } from '@flotilla/proto';
import { timestampFromDate } from '@flotilla/proto';
import type { CatalogImage } from '../catalog/catalog.js';
import { descriptorOf } from './manifest-summaries.js';
import { runConfigMessage } from './run-config-message.js';

/** The image as the contract has it. */
export function imageMessage(
  { record, config, references, secondary, leases }: CatalogImage,
  lowerDirs: string[],
  storageDriver: string,
): image.Image {
  const { platform } = config;
  return {
    id: record.id,
    repoTags: references.filter(({ digest }) => digest === undefined).map(familiarString),
    repoDigests: references.filter(({ digest }) => digest !== undefined).map(familiarString),
    parentId: record.parent,
    comment: config.comment,
    createdAt: config.created === undefined ? undefined : timestampOf(config.created),
    author: config.author,
    config: runConfigMessage(config.run),
    platform: {
      os: platform.os === '' ? 'linux' : platform.os,
      architecture: platform.architecture,
      variant: platform.variant,
      osVersion: platform.osVersion ?? '',
      osFeatures: [],
    },
    sizeBytes: BigInt(record.sizeBytes),
    layers: record.layers.map(({ diffId }) => diffId),
    lastTagTime: record.lastTaggedAt === '' ? undefined : timestampOf(record.lastTaggedAt),
    heldBy: leases.map(({ containerId, containerName }) => ({ containerId, containerName })),
    descriptor: descriptorOf(record.index ?? record.manifest),
    dockerVersion: config.dockerVersion,
    lowerDirs,
    storageDriver,
    createdKnown: config.created !== undefined,
    secondaryNames: secondary.map(familiarString),
  };
}

/** RFC 3339 text, already checked, with all its nanoseconds. */
export function timestampOf(text: string): Timestamp {
  const fraction = /\.(\d+)/.exec(text)?.[1] ?? '';
  const whole = timestampFromDate(new Date(text.replace(/\.\d+/, '')));
  return { seconds: whole.seconds, nanos: Number(fraction.slice(0, 9).padEnd(9, '0')) };
}

/** The platform of a request; fields that are empty stay so. */
export function platformOf(message: common.Platform | undefined) {
  if (message === undefined || (message.os === '' && message.architecture === '')) return undefined;
  const { os, architecture, variant } = message;
  return normalizePlatform({ os: os === '' ? 'linux' : os, architecture, variant });
}
