import { expect, test } from 'vitest';
import { boolean, decodeJson, int64, mapOf, arrayOf, string, stringOrStrings, strings, struct } from './decoders.js';

const portBinding = struct('PortBinding', { HostIp: string, HostPort: string });
const hostConfig = struct('HostConfig', {
  Memory: int64,
  PortBindings: mapOf(arrayOf(portBinding, '[]nat.PortBinding'), 'nat.PortMap'),
});
const request = struct('CreateRequest', { Tty: boolean, Env: strings, Cmd: stringOrStrings, HostConfig: hostConfig });

test.each([
  ['{', 'invalid JSON: unexpected EOF'],
  ['', 'invalid JSON: got EOF while reading request body'],
  ['{"a":1} x', 'unexpected content after JSON'],
  ['{a}', "invalid JSON: invalid character 'a' looking for beginning of object key string"],
  ['{"a" 1}', "invalid JSON: invalid character '1' after object key"],
  ['{"a":1 "b"}', `invalid JSON: invalid character '"' after object key:value pair`],
  ['[1 2]', "invalid JSON: invalid character '2' after array element"],
  ['nope', "invalid JSON: invalid character 'o' in literal null (expecting 'u')"],
  ['{"a":1,}', "invalid JSON: invalid character '}' looking for beginning of object key string"],
  ['"a\nb"', "invalid JSON: invalid character '\\n' in string literal"],
  ['"\\x"', "invalid JSON: invalid character 'x' in string escape code"],
  ['1.x', "invalid JSON: invalid character 'x' after decimal point in numeric literal"],
  ['{"Tty":"yes"}', 'invalid JSON: json: cannot unmarshal string into Go struct field CreateRequest.Tty of type bool'],
  [
    '{"Env":"A=b"}',
    'invalid JSON: json: cannot unmarshal string into Go struct field CreateRequest.Env of type []string',
  ],
  ['{"Cmd":5}', 'invalid JSON: json: cannot unmarshal number into Go value of type string'],
  [
    '{"HostConfig":{"Memory":"64m"}}',
    'invalid JSON: json: cannot unmarshal string into Go struct field HostConfig.HostConfig.Memory of type int64',
  ],
  [
    '{"HostConfig":{"Memory":1.5}}',
    'invalid JSON: json: cannot unmarshal number 1.5 into Go struct field HostConfig.HostConfig.Memory of type int64',
  ],
  [
    '{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":80}]}}}',
    'invalid JSON: json: cannot unmarshal number into Go struct field PortBinding.HostConfig.PortBindings.HostPort of type string',
  ],
  ['[]', 'invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest'],
])('%s is refused in the words of dockerd', (text, message) => {
  expect(() => decodeJson(text, request)).toThrow(message);
});

test('what is nested without end is refused, or passed over where nobody asks for it', () => {
  const [open, close] = ['['.repeat(200_000), ']'.repeat(200_000)];
  expect(() => decodeJson(`{"a":${open}`, request)).toThrow('invalid JSON: exceeded max depth');
  expect(decodeJson(`{"a":${open}${close},"Tty":true}`, request)).toEqual({ Tty: true });
});

test('unknown fields are ignored, names match in any case, null is absent', () => {
  expect(decodeJson('{"tty":true,"nonsense":{"a":[1]},"Env":null,"cmd":"sh"}', request)).toEqual({
    Tty: true,
    Cmd: ['sh'],
  });
  expect(decodeJson('null', request)).toBeUndefined();
  expect(decodeJson('{"HostConfig":{"Memory":9223372036854775807}}', request)?.HostConfig?.Memory).toBe(2n ** 63n - 1n);
});
