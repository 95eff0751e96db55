import { readFileSync, readdirSync } from 'node:fs';
import { isEngineError } from '@flotilla/errors';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  canonicalString,
  chainIds,
  familiarString,
  formatPlatform,
  hostPlatform,
  parseAnyReference,
  parseImageConfig,
  parseManifest,
  parsePlatform,
  parseRunConfig,
  platformMatches,
  renderRunConfig,
  selectManifests,
} from './index.js';

// FUZZ_EFFORT=100 looks a hundred times longer.
const effort = Number(process.env['FUZZ_EFFORT'] ?? 1);
const corpus = new URL('../test/corpus/', import.meta.url);

/** What is refused is refused by name; what is taken can be worked with. */
function refusedOrTaken(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!isEngineError(error, 'invalidArgument')) throw error;
    expect(error.message.length).toBeLessThan(2_000);
  }
}

function useManifest(bytes: Uint8Array, mediaType = ''): void {
  refusedOrTaken(() => {
    const parsed = parseManifest(bytes, mediaType);
    if (parsed.kind === 'index') {
      for (const wanted of [hostPlatform(), { os: 'linux', architecture: 'arm', variant: 'v7' }]) {
        for (const { platform } of selectManifests(parsed, wanted)) {
          if (platform !== undefined) expect(platformMatches(wanted, platform)).toBe(true);
        }
      }
    } else expect(parsed.layers.every(({ size }) => size >= 0)).toBe(true);
  });
}

function useConfig(bytes: Uint8Array): void {
  refusedOrTaken(() => {
    const { diffIds, run, platform } = parseImageConfig(bytes);
    expect(chainIds(diffIds)).toHaveLength(diffIds.length);
    formatPlatform(platform);
    // What is rendered reads as the same.
    expect(parseRunConfig(renderRunConfig(run))).toEqual({
      ...run,
      exposedPorts: [...run.exposedPorts].sort(),
      volumes: [...run.volumes].sort(),
    });
  });
}

function useReference(text: string): void {
  refusedOrTaken(() => {
    const parsed = parseAnyReference(text);
    if (parsed.kind === 'id') return;
    const canonical = canonicalString(parsed.reference);
    const again = parseAnyReference(canonical);
    expect(again.kind === 'name' && canonicalString(again.reference)).toBe(canonical);
    const familiar = parseAnyReference(familiarString(parsed.reference));
    // `x:<64 hex digits>` aside, the short form names the same.
    if (familiar.kind === 'name') expect(canonicalString(familiar.reference)).toBe(canonical);
  });
}

const digest = `sha256:${'a'.repeat(64)}`;
const descriptor = {
  mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
  digest,
  size: 10,
  urls: ['https://example.org/x'],
  annotations: { a: 'b' },
  platform: { os: 'linux', architecture: 'arm', variant: 'v7', 'os.version': '1', 'os.features': ['x'] },
};
const seeds: Readonly<Record<string, unknown>> = {
  manifest: {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: descriptor,
    layers: [descriptor, descriptor],
  },
  index: {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [descriptor, descriptor],
  },
  config: {
    architecture: 'amd64',
    os: 'linux',
    created: '2024-01-02T03:04:05.123456789Z',
    config: {
      User: 'web',
      Env: ['A=b'],
      Cmd: ['sh'],
      Entrypoint: 'sh',
      ExposedPorts: { '80/tcp': {} },
      Volumes: { '/data': {} },
      Labels: { a: 'b' },
      Healthcheck: { Test: ['CMD', 'x'], Interval: 1_000_000_000 },
      StopSignal: 'SIGTERM',
      Shell: ['sh'],
      OnBuild: ['RUN x'],
    },
    rootfs: { type: 'layers', diff_ids: [digest, digest] },
    history: [{ created: '2024-01-02T03:04:05Z', created_by: 'x', empty_layer: true }],
  },
};

const odd = fc.constantFrom<unknown>(
  null,
  true,
  0,
  -1,
  1.5,
  2 ** 53,
  '',
  'x'.repeat(3_000),
  '\0',
  '../../etc',
  digest,
  'sha256:',
  'unknown',
  '0000-00-00T00:00:00Z',
  '2024-02-31T25:61:61Z',
  [],
  [null],
  [[]],
  {},
  { toString: 1 },
  ['__proto__'],
);

/** A document with some of its values replaced, removed, or put under other keys. */
function damaged(seed: unknown): fc.Arbitrary<string> {
  const paths = pathsOf(seed);
  const change = fc.record({
    path: fc.constantFrom(...paths),
    value: odd,
    how: fc.constantFrom('set', 'delete', 'rename'),
  });
  return fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
    const copy = structuredClone(seed);
    for (const { path, value, how } of changes) {
      const key = path.at(-1) ?? '';
      let parent: unknown = copy;
      for (const step of path.slice(0, -1)) parent = (parent as Record<string, unknown> | null)?.[step];
      if (typeof parent !== 'object' || parent === null) continue;
      const target = parent as Record<string, unknown>;
      if (how === 'set') target[key] = structuredClone(value);
      else {
        if (how === 'rename') target[key.toUpperCase()] = target[key];
        Reflect.deleteProperty(target, key);
      }
    }
    return JSON.stringify(copy);
  });
}

function pathsOf(value: unknown, at: string[] = []): string[][] {
  if (typeof value !== 'object' || value === null) return [at];
  const below = Object.entries(value).flatMap(([key, child]) => pathsOf(child, [...at, key]));
  return at.length === 0 ? below : [at, ...below];
}

describe('documents of any sort', () => {
  const limits = { numRuns: 600 * effort, interruptAfterTimeLimit: 3_000 * effort };

  it.each(['manifest', 'index'])('%s', (kind) => {
    fc.assert(
      fc.property(damaged(seeds[kind]), (text) => useManifest(Buffer.from(text))),
      limits,
    );
  });

  it('configuration', () => {
    fc.assert(
      fc.property(damaged(seeds['config']), (text) => useConfig(Buffer.from(text))),
      limits,
    );
  });

  it('bytes of any sort', () => {
    const texts = Object.values(seeds).map((seed) => Buffer.from(JSON.stringify(seed)));
    const changes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(fc.constantFrom(...texts), changes, fc.nat(), (seed, edits, end) => {
        const bytes = Buffer.from(seed);
        for (const [at, value] of edits) bytes[at % bytes.length] = value;
        const given = end % 4 === 0 ? bytes.subarray(0, end % bytes.length) : bytes;
        useManifest(given);
        useConfig(given);
      }),
      limits,
    );
  });

  it('deep and wide ones end soon', () => {
    for (const text of [
      '['.repeat(1_000_000),
      `{"a":`.repeat(300_000),
      '{"schemaVersion":2,"manifests":[' + '{},'.repeat(200_000),
    ]) {
      useManifest(Buffer.from(text));
      useConfig(Buffer.from(text));
    }
    const deep = `{"schemaVersion":2,"rootfs":{},"manifests":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
    useManifest(Buffer.from(deep));
    useConfig(Buffer.from(deep));
  });

  it('platforms', () => {
    const part = fc.constantFrom(
      'linux',
      'LINUX',
      'amd64',
      'x86_64',
      'arm',
      'v7',
      'v9',
      '',
      '/',
      'é',
      '\0',
      'a'.repeat(300),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 5 }), (parts) => {
        refusedOrTaken(() => {
          const platform = parsePlatform(parts.join('/'));
          expect(platformMatches(platform, platform)).toBe(true);
          expect(parsePlatform(formatPlatform(platform))).toEqual(platform);
        });
      }),
      limits,
    );
  });
});

describe('the corpus', () => {
  it.each(readdirSync(corpus))('%s', (file) => {
    const bytes = readFileSync(new URL(file, corpus));
    if (file.startsWith('references')) for (const line of bytes.toString().split('\n')) useReference(line);
    else {
      useManifest(bytes);
      useConfig(bytes);
    }
  });
});
