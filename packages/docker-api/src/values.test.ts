import { expect, test } from 'vitest';
import { apiVersion, formatApiVersion, negotiateApiVersion } from './api-version.js';
import { DEFAULT_DETACH_KEYS, parseDetachKeys } from './detach-keys.js';
import { booleanFilter, matchLabels, parseFilters } from './filters.js';
import { booleanValue, booleanValueOr, integerValue } from './form-values.js';
import { progressBar, renderProgress, renderProgressError } from './progress.js';
import { decodeRegistryAuth } from './registry-auth.js';
import { parseGoDuration, parseTimestamp } from './timestamps.js';
import { humanDuration, humanDurationHolds, humanSize } from './units.js';

test('versions are checked against the range in the words of dockerd', () => {
  expect(formatApiVersion(negotiateApiVersion('1.41'))).toBe('1.41');
  expect(apiVersion(1, 9) < apiVersion(1, 24)).toBe(true);
  expect(() => negotiateApiVersion('1.12')).toThrow(
    'client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version',
  );
  expect(() => negotiateApiVersion('1.99')).toThrow(
    'client version 1.99 is too new. Maximum supported API version is 1.51',
  );
});

test('filters have a new and an old form', () => {
  expect(parseFilters('{"label":["a=b","c","c"]}').get('label')).toEqual(['a=b', 'c']);
  expect(parseFilters('{"label":{"a=b":true}}').get('label')).toEqual(['a=b']);
  expect(parseFilters('').size).toBe(0);
  for (const text of ['{', '[]', '"x"', '{"a":"b"}', '{"a":[1]}', '{"a":{"b":1}}'])
    expect(() => parseFilters(text)).toThrow('invalid filter');
  expect(() => parseFilters('{"nonsense":["1"]}', new Set(['label']))).toThrow("invalid filter 'nonsense'");
  expect(booleanFilter(parseFilters('{"dangling":["1"]}'), 'dangling')).toBe(true);
  expect(booleanFilter(parseFilters('{"dangling":{"false":true}}'), 'dangling')).toBe(false);
  expect(() => booleanFilter(parseFilters('{"dangling":["maybe"]}'), 'dangling')).toThrow(
    "invalid filter 'dangling=[maybe]'",
  );
  expect(matchLabels(['a', 'b=c=d'], { a: '', b: 'c=d' })).toBe(true);
  expect(matchLabels(['a=x'], { a: '' })).toBe(false);
});

test('booleans are read loosely, integers strictly', () => {
  for (const text of ['', '0', 'no', 'False', 'none', ' ', undefined, null]) expect(booleanValue(text)).toBe(false);
  for (const text of ['1', 'true', 'True', 'yes', 'anything']) expect(booleanValue(text)).toBe(true);
  expect(booleanValueOr(null, true)).toBe(true);
  expect(booleanValueOr('', true)).toBe(false);
  expect(integerValue('-1')).toBe(-1);
  expect(integerValue('')).toBeUndefined();
  expect(() => integerValue('10s')).toThrow('strconv.Atoi: parsing "10s": invalid syntax');
});

test('credentials come in both alphabets, padded or not', () => {
  const json = JSON.stringify({ username: 'u', password: 'pä??>>', serveraddress: 'r.example' });
  for (const header of [
    Buffer.from(json).toString('base64'),
    Buffer.from(json).toString('base64url'),
    `${Buffer.from(json).toString('base64url')}=`,
  ]) {
    expect(decodeRegistryAuth(header)).toMatchObject({ username: 'u', password: 'pä??>>', serverAddress: 'r.example' });
  }
  expect(decodeRegistryAuth(Buffer.from('{"identitytoken":"t"}').toString('base64url')).identityToken).toBe('t');
  expect(
    decodeRegistryAuth(
      Buffer.from(JSON.stringify({ auth: Buffer.from('a:b:c').toString('base64') })).toString('base64'),
    ),
  ).toMatchObject({
    username: 'a',
    password: 'b:c',
  });
  expect(() => decodeRegistryAuth('not base64!')).toThrow(
    'invalid X-Registry-Auth header: must be a valid base64url-encoded string',
  );
  expect(() => decodeRegistryAuth(Buffer.from('{"Password":5}').toString('base64url'))).toThrow(
    'invalid X-Registry-Auth header: password must be a string',
  );
  expect(() => decodeRegistryAuth('bm90IGpzb24')).toThrow(
    'invalid X-Registry-Auth header: must be a valid JSON object',
  );
});

test('points in time come as seconds, RFC 3339 and durations', () => {
  const now = 1_700_000_000_000_000_000n;
  expect(parseTimestamp('1136073845.000000001', now)).toBe(1136073845000000001n);
  expect(parseTimestamp('1136073845', now)).toBe(1136073845000000000n);
  expect(parseTimestamp('2006-01-02T15:04:05.999999999Z', now)).toBe(1136214245999999999n);
  expect(parseTimestamp('2006-01-02T15:04:05+02:00', now)).toBe(1136207045000000000n);
  expect(parseTimestamp('1h30m', now)).toBe(now - 5_400_000_000_000n);
  expect(parseTimestamp(undefined, now)).toBeUndefined();
  expect(() => parseTimestamp('yesterday', now)).toThrow('invalid value for timestamp: "yesterday"');
  expect(parseGoDuration('1.5h')).toBe(5_400_000_000_000n);
  expect(parseGoDuration('-300ms')).toBe(-300_000_000n);
  expect(parseGoDuration('10')).toBeUndefined();
});

test('durations and sizes read as in docker ps', () => {
  const second = 1000;
  const hour = 3600 * second;
  const texts: [number, string][] = [
    [450, 'Less than a second'],
    [second, '1 second'],
    [45 * second, '45 seconds'],
    [60 * second, 'About a minute'],
    [90 * second, 'About a minute'],
    [3 * 60 * second, '3 minutes'],
    [hour, 'About an hour'],
    [3 * hour, '3 hours'],
    [35 * hour, '35 hours'],
    [3 * 24 * hour, '3 days'],
    [3 * 7 * 24 * hour, '3 weeks'],
    [70 * 24 * hour, '2 months'],
    [2 * 365 * 24 * hour + 24 * hour, '2 years'],
  ];
  for (const [ms, text] of texts) expect(humanDuration(ms)).toBe(text);
  for (const ms of [10, 59_999, 3_599_999, 5_399_000, 50 * hour]) {
    const holds = humanDurationHolds(ms);
    expect(holds).toBeGreaterThan(0);
    expect(humanDuration(ms + holds - 1)).toBe(humanDuration(ms));
  }
  expect(humanSize(0)).toBe('0B');
  expect(humanSize(3_623_456)).toBe('3.623MB');
  expect(humanSize(1000)).toBe('1kB');
});

test('detach keys are letters and control keys', () => {
  expect(parseDetachKeys('')).toEqual(DEFAULT_DETACH_KEYS);
  expect([...parseDetachKeys('a,ctrl-]')]).toEqual([97, 29]);
  expect(() => parseDetachKeys('shift-a')).toThrow("Unknown character: 'shift-a'");
});

test('progress lines are those of dockerd', () => {
  expect(progressBar({ current: 50, total: 100 })).toBe(`[${'='.repeat(25)}>${' '.repeat(25)}]      50B/100B`);
  expect(progressBar({})).toBe('');
  expect(progressBar({ current: 1500 })).toBe('   1.5kB');
  expect(renderProgress({ id: 'abc', status: 'Pulling fs layer', progressDetail: {} })).toBe(
    '{"status":"Pulling fs layer","progressDetail":{},"id":"abc"}\r\n',
  );
  expect(renderProgressError('no')).toBe('{"errorDetail":{"message":"no"},"error":"no"}\r\n');
});
