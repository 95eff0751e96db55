import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Ajv } from 'ajv';
import { parse } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startTestEngine, type TestEngine } from './test-engine.js';
import { rawRequest } from './raw-http.js';

// The public OpenAPI documents of the Engine API are not part of this repository; they are looked up beside it.
const specDirectory = process.env['FLOTILLA_OPENAPI_DIR'] ?? join(import.meta.dirname, '../../../shared/spec');
const versions = ['1.41', '1.44', '1.47', '1.51'].filter((v) =>
  existsSync(join(specDirectory, `engine-api-v${v}.yaml`)),
);

type Schema = Record<string, unknown>;
interface Operation {
  responses: Record<string, { schema?: Schema }>;
}
interface Document {
  definitions: Record<string, Schema>;
  paths: Record<string, Record<string, Operation>>;
}

/**
 * JSON schema of a Swagger 2 schema: what is null in Go may be null in JSON although the document seldom says so
 * (nil slices and maps), and formats are descriptions only.
 */
function toJsonSchema(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(toJsonSchema);
  if (typeof node !== 'object' || node === null) return node;
  const out: Schema = {};
  for (const [key, value] of Object.entries(node)) {
    if (
      ['format', 'example', 'examples', 'discriminator', 'readOnly', 'x-nullable', 'default'].includes(key) &&
      typeof value !== 'object'
    )
      continue;
    if (key === 'example' || key === 'examples' || key === 'default') continue;
    out[key] =
      key === 'properties' || key === 'definitions'
        ? Object.fromEntries(Object.entries(value as Schema).map(([k, v]) => [k, toJsonSchema(v)]))
        : toJsonSchema(value);
  }
  const nullable = (node as Schema)['x-nullable'] === true || ['array', 'object'].includes(String(out['type']));
  if (nullable && typeof out['type'] === 'string') out['type'] = [out['type'], 'null'];
  if (nullable && Array.isArray(out['enum'])) out['enum'] = [...(out['enum'] as unknown[]), null];
  return out;
}

describe.skipIf(versions.length === 0)(
  'answers match the public OpenAPI document (skipped: no documents beside the repository)',
  () => {
    let t: TestEngine;
    beforeAll(async () => {
      t = await startTestEngine();
      await t.ok('network', 'create', 'schema-net');
      await t.ok(
        'run',
        '-d',
        '--name',
        'up',
        '-p',
        '18000:80',
        '-v',
        'schema-data:/d',
        '--network',
        'schema-net',
        'busybox',
        'sleep',
        '600',
      );
      await t.ok('run', '--name', 'down', '-e', 'A=b', 'busybox', 'true');
    });
    afterAll(async () => {
      await t[Symbol.asyncDispose]();
    });

    describe.each(versions)('version %s', (version) => {
      const document = parse(readFileSync(join(specDirectory, `engine-api-v${version}.yaml`), 'utf8')) as Document;
      const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
      ajv.addSchema({ $id: 'doc', definitions: toJsonSchema(document.definitions) as Schema });
      const validate = (path: string, method: string, status: number, value: unknown): string[] => {
        const schema = document.paths[path]?.[method]?.responses[String(status)]?.schema;
        if (schema === undefined) throw new Error(`the document has no schema of ${method} ${path} ${status}`);
        const rooted = JSON.parse(
          JSON.stringify(toJsonSchema(schema)).replaceAll('"#/definitions/', '"doc#/definitions/'),
        ) as Schema;
        const check = ajv.compile(rooted);
        check(value);
        return (check.errors ?? []).map((e) => `${e.instancePath} ${e.message ?? ''} ${JSON.stringify(e.params)}`);
      };

      it.each([
        ['/containers/json', '/containers/json?all=1'],
        ['/containers/{id}/json', '/containers/up/json'],
        ['/containers/{id}/json', '/containers/down/json'],
        ['/images/json', '/images/json'],
        ['/images/{name}/json', '/images/busybox/json'],
        ['/images/{name}/history', '/images/busybox/history'],
        ['/volumes', '/volumes'],
        ['/volumes/{name}', '/volumes/schema-data'],
        ['/networks', '/networks'],
        ['/networks/{id}', '/networks/schema-net'],
        ['/networks/{id}', '/networks/bridge'],
        ['/info', '/info'],
        ['/version', '/version'],
      ])('GET %s (%s)', async (template, path) => {
        const answer = await rawRequest(t.engine.socket, 'GET', `/v${version}${path}`);
        expect(answer.status).toBe(200);
        expect(validate(template, 'get', 200, answer.json)).toEqual([]);
      });

      it('errors are {message}', async () => {
        const answer = await rawRequest(t.engine.socket, 'GET', `/v${version}/containers/absent/json`);
        expect(validate('/containers/{id}/json', 'get', 404, answer.json)).toEqual([]);
      });
    });
  },
);
