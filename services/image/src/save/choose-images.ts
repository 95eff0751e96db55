import { invalidArgument, notFound } from '@flotilla/errors';
import {
  canonicalString,
  familiarName,
  isNameOnly,
  parseAnyReference,
  platformMatches,
  repositoryName,
} from '@flotilla/oci';
import type { Digest, Platform, Reference } from '@flotilla/oci';
import type { Catalog, CatalogImage } from '../catalog/catalog.js';

/** One image of an archive, with the tags that go along. */
export interface ChosenImage {
  readonly image: CatalogImage;
  readonly tags: readonly Reference[];
}

/**
 * What the names of a save mean (moby image/tarexport): a repository without a tag is all its tags, an id or a digest
 * brings no tag along. Each image is chosen once, in the order of the names. Of several platforms under one name it is
 * those that are wanted, or this machine's when none are.
 *
 * @throws EngineError `notFound` `No such image: x`; `invalidArgument` for no names at all.
 */
export function chooseImages(
  catalog: Catalog,
  names: readonly string[],
  platforms: readonly Platform[],
): readonly ChosenImage[] {
  if (names.length === 0) throw invalidArgument('no image to save was named');
  const chosen = new Map<Digest, { image: CatalogImage; tags: Map<string, Reference> }>();
  const choose = (image: CatalogImage, tag?: Reference): void => {
    const known = chosen.get(image.record.id) ?? { image, tags: new Map<string, Reference>() };
    chosen.set(image.record.id, known);
    if (tag !== undefined && tag.digest === undefined) known.tags.set(canonicalString(tag), tag);
  };
  const isWanted = ({ config }: CatalogImage): boolean =>
    platforms.some((wanted) => platformMatches(wanted, config.platform));
  for (const name of names) {
    const tagged = repositoryTags(catalog, name);
    const parsed = parseAnyReference(name);
    // What was found by the start of its id has no such tag.
    const tag = parsed.kind === 'name' && parsed.reference.tag !== undefined ? parsed.reference : undefined;
    const found =
      tagged.length > 0
        ? tagged.filter((it) => (platforms.length > 0 ? isWanted(it.image) : !it.image.secondary.includes(it.tag)))
        : (platforms.length > 0 ? catalog.resolveAll(name).filter(isWanted) : [catalog.resolve(name)]).map((image) => ({
            image,
            tag,
          }));
    if (found.length === 0) {
      // Says which platform is there instead.
      if (tagged.length === 0) catalog.resolve(name, platforms[0]);
      throw notFound(`No such image: ${name} for the requested platform`);
    }
    for (const { image, tag: own } of found) choose(image, own);
  }
  return [...chosen.values()].map(({ image, tags }) => ({ image, tags: [...tags.values()] }));
}

/** Every tag of the repository that the name is, if it is one. */
function repositoryTags(catalog: Catalog, name: string): { image: CatalogImage; tag: Reference }[] {
  const parsed = parseAnyReference(name);
  if (parsed.kind !== 'name' || !isNameOnly(parsed.reference) || familiarName(parsed.reference) === 'sha256') return [];
  const repository = repositoryName(parsed.reference);
  return catalog
    .all()
    .flatMap((image) =>
      image.references
        .filter((tag) => tag.digest === undefined && repositoryName(tag) === repository)
        .map((tag) => ({ image, tag })),
    )
    .sort((a, b) => (canonicalString(a.tag) < canonicalString(b.tag) ? -1 : 1));
}
