import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseReference, sha256Of } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { MemoryDisk, Store } from '@flotilla/store';
import { Catalog } from './catalog.js';
import { leasedLayers } from './records.js';
import type { ImageRecord, LeaseRecord } from './records.js';

const layer = (name: string) => ({
  diffId: sha256Of(name),
  chainId: sha256Of(name),
  blob: { digest: sha256Of(`blob ${name}`), size: 1, mediaType: '' },
});

function record(layers: string[], labels: Record<string, string> = {}): ImageRecord {
  const configJson = JSON.stringify({
    config: { Labels: labels },
    rootfs: { diff_ids: layers.map((it) => sha256Of(it)) },
  });
  const id = sha256Of(configJson);
  return {
    id,
    configJson,
    manifest: { digest: sha256Of(`manifest ${id}`), size: 1, mediaType: '' },
    index: null,
    layers: layers.map(layer),
    sizeBytes: 1,
    parent: '',
    addedAt: '',
    lastTaggedAt: '',
  };
}

const byId = (leases: readonly LeaseRecord[]) => [...leases].sort((a, b) => (a.containerId < b.containerId ? -1 : 1));
const options = { service: 'image', schemaVersion: 1 };

describe('Catalog', () => {
  it('finds by name, id and the start of an id', async () => {
    const catalog = await Catalog.load(Store.memory(options));
    const image = record(['a']);
    await catalog.commit({ putImages: [image], name: [{ reference: parseReference('web:1'), imageId: image.id }] });
    for (const name of [
      'web:1',
      'docker.io/library/web:1',
      image.id,
      image.id.slice(7),
      image.id.slice(7, 15),
      image.id.slice(0, 20),
    ]) {
      expect(catalog.resolve(name).record.id, name).toBe(image.id);
    }
    expect(() => catalog.resolve('web')).toThrow('No such image: web:latest');
    expect(() => catalog.resolve('Web')).toThrow('must be lowercase');
  });

  it('does not guess between two', async () => {
    const catalog = await Catalog.load(Store.memory(options));
    const images = Array.from({ length: 40 }, (_, at) => record([`${at}`]));
    await catalog.commit({ putImages: images });
    const digits = images.map(({ id }) => id[7] ?? '');
    const twice = digits.find((digit, at) => digits.indexOf(digit) !== at) ?? '';
    expect(() => catalog.resolve(twice)).toThrow(`No such image: ${twice}:latest`);
  });

  it('sets aside what it cannot read, and nothing is deleted until that is there again', async () => {
    const disk = new MemoryDisk();
    const store = await Store.openMemory(disk, options);
    const catalog = await Catalog.load(store);
    const [whole, torn, odd] = ['a', 'b', 'c'].map((name) => record([name])) as [ImageRecord, ImageRecord, ImageRecord];
    const name = [
      { reference: parseReference('web:1'), imageId: whole.id },
      { reference: parseReference('web:2'), imageId: torn.id },
    ];
    await catalog.commit({ putImages: [whole, torn, odd], name });
    await store.close();
    const bare = await Store.openMemory(disk, options);
    const raw = { encode: (bytes: Uint8Array) => bytes, decode: (bytes: Uint8Array) => bytes };
    const images = bare.collection('images', raw);
    const leases = bare.collection('leases', raw);
    await bare.commit((batch) => {
      batch.put(images, torn.id, Buffer.from('{"id":'));
      batch.put(images, odd.id, Buffer.from(JSON.stringify({ ...odd, configJson: 'no JSON' })));
      batch.put(leases, 'f00', Buffer.from('null'));
    });
    await bare.close();
    for (const _ of ['at once', 'and at the next start']) {
      const next = await Store.openMemory(disk, options);
      const again = await Catalog.load(next);
      expect(again.all().map(({ record: { id } }) => id)).toEqual([whole.id]);
      expect(again.resolve('web:1').record).toEqual(whole);
      expect(() => again.resolve('web:2')).toThrow('No such image: web:2');
      expect(again.mayMissRecords).toBe(true);
      await next.close();
    }
    const mended = await Catalog.load(await Store.openMemory(disk, options));
    await mended.commit({ putImages: [torn, odd] });
    expect(mended.resolve('web:2').record).toEqual(torn);
    expect(mended.mayMissRecords).toBe(true);
    await mended.commit({ removeLeases: ['f00'] });
    expect(mended.mayMissRecords).toBe(false);
  });

  it('takes a change back that cannot be written', async () => {
    const store = Store.memory(options);
    const catalog = await Catalog.load(store);
    const image = record(['a']);
    await catalog.commit({ putImages: [image], name: [{ reference: parseReference('web:1'), imageId: image.id }] });
    await store.close();
    await expect(catalog.commit({ removeImages: [image.id], unname: [parseReference('web:1')] })).rejects.toThrow();
    await expect(catalog.commit({ putImages: [record(['b'])] })).rejects.toThrow();
    expect(catalog.resolve('web:1').references).toHaveLength(1);
    expect(catalog.all()).toHaveLength(1);
    expect(catalog.usesLayer(layer('a').chainId)).toBe(true);
    expect(catalog.usesLayer(layer('b').chainId)).toBe(false);
  });

  it('collects exactly what nothing needs, whatever happens, and is the same after a restart', async () => {
    const names = ['x:1', 'x:2', 'y:1'].map(parseReference);
    const images = [record(['a']), record(['a', 'b']), record(['b', 'c'], { l: '1' })];
    const step = fc.oneof(
      fc.record({ kind: fc.constant('put' as const), image: fc.nat(2), name: fc.nat(2) }),
      fc.record({ kind: fc.constant('remove' as const), image: fc.nat(2) }),
      fc.record({ kind: fc.constant('lease' as const), image: fc.nat(2), container: fc.nat(2), mounted: fc.nat(2) }),
      fc.record({ kind: fc.constant('release' as const), container: fc.nat(2) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const disk = new MemoryDisk();
        const store = await Store.openMemory(disk, options);
        const catalog = await Catalog.load(store);
        const collected = new Set<string>();
        catalog.collector = {
          collect: (keys) => {
            for (const key of keys) if (key.startsWith('layer')) collected.add(key.slice(6));
            return Promise.resolve();
          },
        };
        for (const it of steps) {
          const image = 'image' in it ? images[it.image] : undefined;
          const container = 'container' in it ? `c${it.container}` : '';
          if (it.kind === 'put' && image !== undefined) {
            const reference = names[it.name] ?? parseReference('z');
            await catalog.commit({ putImages: [image], name: [{ reference, imageId: image.id }] });
          } else if (it.kind === 'remove' && image !== undefined) {
            await catalog.commit({ removeImages: [image.id], unname: catalog.get(image.id)?.references ?? [] });
          } else if (it.kind === 'lease' && image !== undefined && catalog.get(image.id) !== undefined) {
            const chainIds = image.layers.map(({ chainId }) => chainId);
            const mounted = catalog.get(images[it.mounted]?.id ?? image.id)?.record ?? image;
            const mounts = [{ imageId: mounted.id, chainIds: mounted.layers.map(({ chainId }) => chainId) }];
            const own = { containerId: container, containerName: '', imageId: image.id, chainIds, createdAt: '' };
            const lease = mounted === image ? own : { ...own, mounts };
            if (catalog.lease(container) === undefined) await catalog.commit({ putLeases: [lease] });
          } else if (it.kind === 'release') await catalog.commit({ removeLeases: [container] });
          const needed = new Set<Digest>([
            ...catalog.all().flatMap(({ record: { layers } }) => layers.map(({ chainId }) => chainId)),
            ...catalog.leases().flatMap(leasedLayers),
          ]);
          for (const { chainId } of ['a', 'b', 'c'].map(layer))
            expect(catalog.usesLayer(chainId)).toBe(needed.has(chainId));
          for (const chainId of collected) if (needed.has(chainId as Digest)) collected.delete(chainId);
        }
        const before = catalog.all();
        await store.close();
        const again = await Catalog.load(await Store.openMemory(disk, options));
        expect(new Set(again.all().map(({ record: { id } }) => id))).toEqual(
          new Set(before.map(({ record: { id } }) => id)),
        );
        for (const image of before) {
          const found = again.get(image.record.id);
          expect({ ...found, leases: byId(found?.leases ?? []) }).toEqual({ ...image, leases: byId(image.leases) });
        }
      }),
      { numRuns: 60 },
    );
  });
});
