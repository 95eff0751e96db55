import { parseFilters } from '@flotilla/docker-api';
import { image } from '@flotilla/proto';
import { describe, expect, it } from 'vitest';
import { selectImages } from './image-filters.js';

const digest = `sha256:${'d'.repeat(64)}`;
const make = (
  id: string,
  seconds: number,
  repoTags: string[],
  part: Parameters<typeof image.Image.fromPartial>[0] = {},
): image.Image => image.Image.fromPartial({ id, createdAt: { seconds: BigInt(seconds) }, repoTags, ...part });

const images = [
  make('base', 10, [], { parentId: '' }),
  make('child', 20, ['web:1', 'web:2', 'localhost:5000/team/web:1'], {
    parentId: 'base',
    config: { labels: { kind: 'web', empty: '' } },
  }),
  make('untagged', 30, [], { config: { labels: { kind: 'old' } } }),
  make('by-digest', 40, [], { repoDigests: [`db@${digest}`] }),
  make('db', 50, ['db:latest'], { repoDigests: [`db@${digest}`], config: { labels: { kind: 'db' } } }),
];
const nowNs = 100n * 1_000_000_000n;
const select = (filters: Record<string, string[]>, all = false): string[] =>
  selectImages(
    images,
    parseFilters(JSON.stringify(filters)),
    all,
    (name) => {
      const found = images.find(({ id }) => id === name);
      if (found === undefined) throw new Error(`No such image: ${name}`);
      return found;
    },
    nowNs,
  ).map(({ id }) => id);

describe('filters of images', () => {
  it.each<[string, Record<string, string[]>, string[]]>([
    ['none', {}, ['db', 'by-digest', 'untagged', 'child']],
    ['dangling', { dangling: ['true'] }, ['by-digest', 'untagged']],
    ['not dangling', { dangling: ['0'] }, ['db', 'by-digest', 'child']],
    ['a label', { label: ['kind'] }, ['db', 'untagged', 'child']],
    ['a label with its value', { label: ['kind=web'] }, ['child']],
    ['an empty value', { label: ['empty='] }, ['child']],
    ['two labels', { label: ['kind=web', 'empty'] }, ['child']],
    ['without a label', { 'label!': ['kind=web'] }, ['db', 'by-digest', 'untagged']],
    ['without any of two labels', { 'label!': ['kind=web', 'kind=old'] }, ['db', 'by-digest']],
    ['before', { before: ['untagged'] }, ['child']],
    ['since', { since: ['untagged'] }, ['db', 'by-digest']],
    ['between', { since: ['child'], before: ['db'] }, ['by-digest', 'untagged']],
    ['until a time', { until: ['35'] }, ['untagged', 'child']],
    ['until an age', { until: ['75s'] }, ['child']],
    ['a name', { reference: ['web'] }, ['child']],
    ['a name with its tag', { reference: ['db:latest'] }, ['db']],
    ['a glob over tags', { reference: ['web:*'] }, ['child']],
    ['a glob within a segment', { reference: ['*/*/web'] }, ['child']],
    ['a star does not cross slashes', { reference: ['*web'] }, ['child']],
    ['one of two', { reference: ['nothing', 'd?'] }, ['db', 'by-digest']],
    ['a digest', { reference: [`db@${digest}`] }, ['db', 'by-digest']],
    ['several at once', { reference: ['*'], label: ['kind'], since: ['child'] }, ['db']],
  ])('%s', (_, filters, expected) => {
    expect(select(filters)).toEqual(expected);
  });

  it('shows what others are made from only when asked for all', () => {
    expect(select({}, true)).toEqual(['db', 'by-digest', 'untagged', 'child', 'base']);
    expect(select({ dangling: ['true'] }, true)).toEqual(['by-digest', 'untagged']);
  });

  it('leaves only the names that match', () => {
    const [found] = selectImages(images, parseFilters('{"reference":["web"]}'), false, () => images[0]!, nowNs); // eslint-disable-line @typescript-eslint/no-non-null-assertion -- never asked
    expect(found?.repoTags).toEqual(['web:1', 'web:2']);
  });

  it.each<[Record<string, string[]>, string]>([
    [{ dangling: ['maybe'] }, "invalid filter 'dangling=[maybe]'"],
    [{ before: ['nothing'] }, 'No such image: nothing'],
    [{ reference: ['['] }, 'syntax error in pattern'],
    [{ reference: ['[z-a'] }, 'syntax error in pattern'],
    [{ until: ['when?'] }, 'when?'],
  ])('refuses %j', (filters, message) => {
    expect(() => select(filters)).toThrow(message);
  });
});
