import { beforeEach, describe, expect, it } from 'vitest';
import { parseReference, sha256Of } from '@flotilla/oci';
import type { Digest } from '@flotilla/oci';
import { Store } from '@flotilla/store';
import { Catalog } from '../catalog/catalog.js';
import type { ImageRecord } from '../catalog/records.js';
import { Images } from './images.js';
import { planRemoval } from './remove-image.js';

function record(name: string, parent: Digest | '' = ''): ImageRecord {
  const configJson = JSON.stringify({ config: { Labels: { name } }, rootfs: { diff_ids: [] } });
  return {
    id: sha256Of(configJson),
    configJson,
    manifest: { digest: sha256Of(name), size: 1, mediaType: '' },
    index: null,
    layers: [],
    sizeBytes: 1,
    parent,
    addedAt: '',
    lastTaggedAt: '',
  };
}

const base = record('base');
const middle = record('middle', base.id);
const [left, right] = [record('left', middle.id), record('right', middle.id)];
const all = [base, middle, left, right];

let catalog: Catalog;
beforeEach(async () => {
  catalog = await Catalog.load(Store.memory({ service: 'image', schemaVersion: 1 }));
  const names = new Map([
    ['base:1', base],
    ['middle:1', middle],
    ['left:1', left],
    ['right:1', right],
  ]);
  const name = [...names].map(([text, { id }]) => ({ reference: parseReference(text), imageId: id }));
  await catalog.commit({ putImages: all, name });
});

describe('of images that others were made from', () => {
  const remove = async (name: string, force = false) => {
    const plan = planRemoval(catalog, name, { force, noPrune: false, running: new Set(), platforms: [] });
    await catalog.commit(plan);
    return plan.removed.map(({ kind, what }) => `${kind} ${what}`);
  };

  it('only the name is removed, and the image with its last child', async () => {
    expect(await remove('middle:1')).toEqual(['untagged middle:1']);
    expect(await remove('left:1')).toEqual(['untagged left:1', `deleted ${left.id}`]);
    const rest = ['untagged right:1', `deleted ${right.id}`, `deleted ${middle.id}`];
    expect(await remove('right:1')).toEqual(rest);
    expect(catalog.all().map(({ record: { id } }) => id)).toEqual([base.id]);
  });

  it('no id is removed, even by force', async () => {
    const message = `conflict: unable to delete ${middle.id.slice(7, 19)} (cannot be forced) - image has dependent child images`;
    await expect(remove(middle.id)).rejects.toThrow(message);
    await expect(remove(middle.id, true)).rejects.toThrow(message);
  });

  it.each([
    ['each with a name', []],
    ['one between without a name', [parseReference('middle:1')]],
  ])('prune removes them all, children first: %s', async (_, unname) => {
    await catalog.commit({ unname });
    const images = new Images({ catalog, layers: {} as never, now: () => new Date() });
    const filter = { dangling: false, until: undefined, matchesLabels: () => true };
    const { removed } = await images.prune(filter, new AbortController().signal);
    expect(removed.filter(({ kind }) => kind === 'deleted').map(({ what }) => what)).toEqual(
      [left, right, middle, base].map(({ id }) => id),
    );
    expect(catalog.all()).toEqual([]);
  });
});
