import { apiVersion } from '@flotilla/docker-api';
import type { ImageConfig, ImageHistoryEntry, ImageInspect, ImageSummary } from '@flotilla/docker-api';
import { timestampToRfc3339Nano } from '@flotilla/proto';
import type { image } from '@flotilla/proto';
import { VersionedShape } from '../model/rendered.js';
import { descriptorShape, healthConfigShape, listOrNull, mapOrNull, setOf, unixSeconds } from './common.js';

/** An entry of `GET /images/json` with the older forms of it. */
export const imageSummary = new VersionedShape<image.Image, ImageSummary>(
  (object) => ({
    Containers: -1,
    Created: object.createdKnown || object.createdAt !== undefined ? unixSeconds(object.createdAt) : 0,
    Id: object.id,
    Labels: object.config?.labels ?? {},
    ParentId: object.parentId,
    ...(object.descriptor === undefined ? {} : { Descriptor: descriptorShape(object.descriptor) }),
    RepoDigests: object.repoDigests,
    RepoTags: object.repoTags,
    SharedSize: -1,
    Size: Number(object.sizeBytes),
  }),
  [
    {
      // The number of containers is the newest: whoever has it sets it.
      below: apiVersion(1, 51),
      convert: () => undefined,
    },
    {
      below: apiVersion(1, 48),
      convert: (shape) => {
        delete shape.Descriptor;
      },
    },
    {
      below: apiVersion(1, 44),
      convert: (shape) => {
        shape.VirtualSize = shape.Size;
      },
    },
    {
      // Images without a name used to be named `<none>`.
      below: apiVersion(1, 43),
      convert: (shape) => {
        if (shape.RepoTags.length > 0 || shape.RepoDigests.length > 0) return;
        shape.RepoTags = ['<none>:<none>'];
        shape.RepoDigests = ['<none>@<none>'];
      },
    },
  ],
);

function configShape(config: image.ImageConfig | undefined): ImageConfig {
  return {
    ...(config === undefined || config.exposedPorts.length === 0 ? {} : { ExposedPorts: setOf(config.exposedPorts) }),
    ...(config?.argsEscaped === true ? { ArgsEscaped: true } : {}),
    Cmd: listOrNull(config?.cmd ?? []),
    Entrypoint: listOrNull(config?.entrypoint ?? []),
    Env: listOrNull(config?.env ?? []),
    ...(config?.healthcheck === undefined ? {} : { Healthcheck: healthConfigShape(config.healthcheck) }),
    Labels: mapOrNull(config?.labels ?? {}),
    OnBuild: listOrNull(config?.onBuild ?? []),
    ...(config === undefined || config.shell.length === 0 ? {} : { Shell: config.shell }),
    ...(config === undefined || config.stopSignal === '' ? {} : { StopSignal: config.stopSignal }),
    User: config?.user ?? '',
    Volumes: config === undefined || config.volumes.length === 0 ? null : setOf(config.volumes),
    WorkingDir: config?.workingDir ?? '',
  };
}

/** Fields that say nothing about an image; clients of 1.49 and before expect them. */
const LEGACY_CONFIG = {
  AttachStderr: false,
  AttachStdin: false,
  AttachStdout: false,
  Domainname: '',
  Hostname: '',
  Image: '',
  OpenStdin: false,
  StdinOnce: false,
  Tty: false,
};

/** `GET /images/{name}/json` with the older forms of it. */
export const imageInspect = new VersionedShape<image.Image, ImageInspect>(
  (object) => {
    const platform = object.platform;
    const [upper = '', ...lower] = object.lowerDirs;
    return {
      Id: object.id,
      RepoTags: object.repoTags,
      RepoDigests: object.repoDigests,
      Parent: object.parentId,
      Comment: object.comment,
      ...(object.createdAt === undefined ? {} : { Created: timestampToRfc3339Nano(object.createdAt) }),
      DockerVersion: object.dockerVersion,
      Author: object.author,
      Config: configShape(object.config),
      Architecture: platform?.architecture ?? '',
      ...(platform === undefined || platform.variant === '' ? {} : { Variant: platform.variant }),
      Os: platform?.os ?? '',
      ...(platform === undefined || platform.osVersion === '' ? {} : { OsVersion: platform.osVersion }),
      Size: Number(object.sizeBytes),
      GraphDriver:
        object.storageDriver === 'vfs'
          ? { Data: null, Name: 'vfs' }
          : {
              Data: { ...(lower.length === 0 ? {} : { LowerDir: lower.join(':') }), UpperDir: upper },
              Name: 'overlay2',
            },
      RootFS: { Type: 'layers', ...(object.layers.length === 0 ? {} : { Layers: object.layers }) },
      Metadata: { LastTagTime: timestampToRfc3339Nano(object.lastTagTime) },
      ...(object.descriptor === undefined ? {} : { Descriptor: descriptorShape(object.descriptor) }),
      // dockerd has none since 1.45, but docker-compose 1.29, which speaks the newest version, reads the volumes to keep here.
      ContainerConfig: { Volumes: configShape(object.config).Volumes },
    };
  },
  [
    {
      below: apiVersion(1, 50),
      convert: (shape) => {
        shape.Config = { ...LEGACY_CONFIG, ...shape.Config };
      },
    },
    {
      below: apiVersion(1, 48),
      convert: (shape) => {
        delete shape.Descriptor;
      },
    },
    {
      below: apiVersion(1, 45),
      convert: (shape) => {
        Object.assign(shape, {
          Container: '',
          ContainerConfig: {
            ...LEGACY_CONFIG,
            Cmd: null,
            Entrypoint: null,
            Env: null,
            Labels: null,
            OnBuild: null,
            User: '',
            WorkingDir: '',
            ...shape.ContainerConfig,
          },
        });
      },
    },
    {
      below: apiVersion(1, 44),
      convert: (shape) => {
        shape.VirtualSize = shape.Size;
        shape.Created ??= '0001-01-01T00:00:00Z';
      },
    },
  ],
);

/** An entry of `GET /images/{name}/history`. */
export const historyShape = (entry: image.HistoryEntry): ImageHistoryEntry => ({
  Comment: entry.comment,
  Created: unixSeconds(entry.createdAt),
  CreatedBy: entry.createdBy,
  Id: entry.id,
  Size: Number(entry.sizeBytes),
  Tags: listOrNull(entry.tags),
});
