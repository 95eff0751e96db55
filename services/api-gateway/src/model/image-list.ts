import { apiVersion } from '@flotilla/docker-api';
import type { ApiVersion, ImageSummary } from '@flotilla/docker-api';
import type { container, image } from '@flotilla/proto';
import { imageSummary } from '../shapes/image.js';

/** An entry of the list with the number of containers that use the image, which clients below 1.51 are not told. */
export function imageRow(object: image.Image, version: ApiVersion, containers: number): ImageSummary {
  const shape = imageSummary.render(object, version);
  if (version >= apiVersion(1, 51)) shape.Containers = containers;
  return shape;
}

/** How many containers each image has, by its id. */
export function containersByImage(containers: Iterable<container.Container>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { imageId } of containers) counts.set(imageId, (counts.get(imageId) ?? 0) + 1);
  return counts;
}

interface Row {
  readonly containers: number;
  readonly text: string;
}

/** Finished lists; the text of a row is kept as long as the image and the number of its containers stay the same. */
export class ImageListRenderer {
  readonly #rows = new WeakMap<image.Image, Map<number, Row>>();

  render(objects: readonly image.Image[], version: ApiVersion, counts: ReadonlyMap<string, number>): Buffer {
    const rows = objects.map((object) => this.#row(object, version, counts.get(object.id) ?? 0));
    return Buffer.from(`[${rows.join(',')}]\n`);
  }

  #row(object: image.Image, version: ApiVersion, containers: number): string {
    let byClass = this.#rows.get(object);
    if (byClass === undefined) this.#rows.set(object, (byClass = new Map<number, Row>()));
    const versionClass = imageSummary.classOf(version);
    const kept = byClass.get(versionClass);
    if (kept?.containers === containers) return kept.text;
    const text = JSON.stringify(imageRow(object, version, containers));
    byClass.set(versionClass, { containers, text });
    return text;
  }
}
