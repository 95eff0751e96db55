import { MAX_API_VERSION, parseApiVersion } from '@flotilla/docker-api';
import { container, image, network } from '@flotilla/proto';
import { expect, test } from 'vitest';
import type { VersionedShape } from '../model/rendered.js';
import { containerInspect, containerSummary } from './container.js';
import { imageInspect, imageSummary } from './image.js';
import { networkInspect } from './network.js';

/** Paths of everything in a JSON value, without list positions. */
function pathsOf(value: unknown, prefix = ''): string[] {
  if (typeof value !== 'object' || value === null) return [prefix];
  if (Array.isArray(value)) return [prefix, ...value.flatMap((item) => pathsOf(item, prefix))];
  return [prefix, ...Object.entries(value).flatMap(([key, item]) => pathsOf(item, `${prefix}.${key}`))];
}

/** What a version has more and less than the next newer one that is listed. */
function differences<T, S>(
  shape: VersionedShape<T, S>,
  object: T,
  versions: readonly string[],
): Record<string, string[]> {
  const result: Record<string, string[]> = {};
  let newer = new Set(pathsOf(shape.render(object, MAX_API_VERSION)));
  for (const version of versions) {
    const older = new Set(pathsOf(shape.render(object, parseApiVersion(version))));
    result[version] = [
      ...[...older].filter((path) => !newer.has(path)).map((path) => `+${path}`),
      ...[...newer].filter((path) => !older.has(path)).map((path) => `-${path}`),
    ].sort();
    newer = older;
  }
  return result;
}

const descriptor = { mediaType: 'm', digest: 'd', sizeBytes: 1n };
const web = container.Container.fromPartial({
  id: 'a'.repeat(64),
  name: 'web',
  config: { image: 'x', hostname: 'h', healthcheck: { test: ['CMD', 'x'], startIntervalNs: 5n } },
  hostConfig: { annotations: { a: 'b' }, cgroupnsMode: 'private', networkMode: 'n', resources: {} },
  state: {},
  imageDescriptor: descriptor,
  networkSettings: { networks: [{ network: 'n', networkId: '1', request: { aliases: ['w'] } }] },
});
const busybox = image.Image.fromPartial({
  id: 'sha256:1',
  repoTags: ['busybox:latest'],
  config: {},
  descriptor,
  createdAt: { seconds: 1n },
  platform: {},
});

test('inspect of a container, step by step', () => {
  expect(
    differences(containerInspect, web, ['1.48', '1.47', '1.45', '1.44', '1.43', '1.42', '1.41', '1.40', '1.24']),
  ).toEqual({
    '1.48': [],
    '1.47': [
      '-.ImageManifestDescriptor',
      '-.ImageManifestDescriptor.digest',
      '-.ImageManifestDescriptor.mediaType',
      '-.ImageManifestDescriptor.size',
      '-.NetworkSettings.Networks.n.GwPriority',
    ],
    '1.45': [],
    '1.44': [],
    '1.43': ['-.Config.Healthcheck.StartInterval', '-.NetworkSettings.Networks.n.DNSNames'],
    '1.42': ['-.HostConfig.Annotations', '-.HostConfig.Annotations.a'],
    '1.41': ['+.HostConfig.KernelMemory', '+.HostConfig.KernelMemoryTCP'],
    '1.40': ['-.HostConfig.CgroupnsMode'],
    '1.24': [],
  });
  const aliases = (version: string): unknown =>
    containerInspect.render(web, parseApiVersion(version)).NetworkSettings.Networks['n']?.Aliases;
  expect(aliases('1.45')).toEqual(['w']);
  expect(aliases('1.44')).toEqual(['w', 'a'.repeat(12), 'h']);
});

test('an entry of a list of containers, step by step', () => {
  expect(
    differences(containerSummary, { object: web, image: 'x' }, [
      '1.48',
      '1.47',
      '1.46',
      '1.45',
      '1.44',
      '1.43',
      '1.24',
    ]),
  ).toEqual({
    '1.48': [],
    '1.47': [
      '-.ImageManifestDescriptor',
      '-.ImageManifestDescriptor.digest',
      '-.ImageManifestDescriptor.mediaType',
      '-.ImageManifestDescriptor.size',
      '-.NetworkSettings.Networks.n.GwPriority',
    ],
    '1.46': [],
    '1.45': ['-.HostConfig.Annotations', '-.HostConfig.Annotations.a'],
    '1.44': [],
    '1.43': ['-.NetworkSettings.Networks.n.DNSNames'],
    '1.24': [],
  });
});

test('images, step by step', () => {
  const config = [
    'AttachStderr',
    'AttachStdin',
    'AttachStdout',
    'Domainname',
    'Hostname',
    'Image',
    'OpenStdin',
    'StdinOnce',
    'Tty',
  ];
  const steps = differences(imageInspect, busybox, ['1.50', '1.49', '1.48', '1.47', '1.45', '1.44', '1.43', '1.24']);
  expect(steps).toMatchObject({
    '1.50': [],
    '1.49': config.map((key) => `+.Config.${key}`),
    '1.48': [],
    '1.47': ['-.Descriptor', '-.Descriptor.digest', '-.Descriptor.mediaType', '-.Descriptor.size'],
    '1.45': [],
    '1.43': ['+.VirtualSize'],
    '1.24': [],
  });
  expect(steps['1.44']).toContain('+.ContainerConfig.Hostname');
  expect(differences(imageSummary, busybox, ['1.48', '1.47', '1.44', '1.43', '1.42'])).toEqual({
    '1.48': [],
    '1.47': ['-.Descriptor', '-.Descriptor.digest', '-.Descriptor.mediaType', '-.Descriptor.size'],
    '1.44': [],
    '1.43': ['+.VirtualSize'],
    '1.42': [],
  });
});

test('networks, step by step', () => {
  expect(
    differences(networkInspect, network.Network.fromPartial({ id: '1', name: 'n' }), ['1.48', '1.47', '1.24']),
  ).toEqual({
    '1.48': [],
    '1.47': ['-.EnableIPv4'],
    '1.24': [],
  });
});
