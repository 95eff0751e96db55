import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer, type ServerOptions } from 'node:https';
import type { AddressInfo } from 'node:net';
import { sha256, type FixtureImage } from '@flotilla/testkit';

/** Bytes that are served whatever they are. */
export interface ScriptedAnswer {
  readonly bytes: Buffer;
  readonly type: string;
  /** What `Docker-Content-Digest` claims; none when absent. */
  readonly digest?: string;
}

/** A registry without any checks: it serves exactly what it is given, right or wrong. */
export interface ScriptedRegistry extends AsyncDisposable {
  readonly address: string;
  /** `/v2/<name>/manifests/<reference>` answers this. */
  manifest(name: string, reference: string, bytes: Buffer, type: string): void;
  /** `/v2/<name>/blobs/<digest>` answers these bytes, by default those of the digest. */
  blob(name: string, bytes: Buffer, digest?: string): void;
  /** A whole image under `name:latest`. */
  image(name: string, image: FixtureImage): void;
  /** Asked before anything else; true when it has answered. */
  intercept: (request: IncomingMessage, response: ServerResponse) => boolean;
}

/** Start it on a free port of an address (of loopback by default) in this thread's network namespace. */
export async function startScriptedRegistry(
  options: { host?: string; tls?: ServerOptions } = {},
): Promise<ScriptedRegistry> {
  const host = options.host ?? '127.0.0.1';
  const answers = new Map<string, ScriptedAnswer>();
  const handlers = { intercept: (_request: IncomingMessage, _response: ServerResponse): boolean => false };
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    if (handlers.intercept(request, response)) return;
    const path = (request.url ?? '').split('?')[0] ?? '';
    if (path === '/v2/') {
      response.end('{}');
      return;
    }
    const found = answers.get(path);
    if (found === undefined) {
      const code = path.includes('/blobs/') ? 'BLOB_UNKNOWN' : 'MANIFEST_UNKNOWN';
      response.writeHead(404, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ errors: [{ code, message: code.toLowerCase().replace('_', ' ') }] }));
      return;
    }
    response.writeHead(200, {
      'content-type': found.type,
      'content-length': found.bytes.length,
      ...(found.digest === undefined ? {} : { 'docker-content-digest': found.digest }),
    });
    response.end(request.method === 'HEAD' ? undefined : found.bytes);
  };
  const server = options.tls === undefined ? createServer(answer) : createTlsServer(options.tls, answer);
  server.listen(0, host);
  await once(server, 'listening');

  const manifest: ScriptedRegistry['manifest'] = (name, reference, bytes, type) => {
    const digest = sha256(bytes);
    const isDigest = reference.startsWith('sha256:');
    answers.set(`/v2/${name}/manifests/${reference}`, { bytes, type, digest: isDigest ? reference : digest });
  };
  const blob: ScriptedRegistry['blob'] = (name, bytes, digest = sha256(bytes)) => {
    answers.set(`/v2/${name}/blobs/${digest}`, { bytes, type: 'application/octet-stream' });
  };
  return {
    address: `${host}:${(server.address() as AddressInfo).port}`,
    manifest,
    blob,
    image(name, { configJson, manifestJson, manifestType, layers }) {
      for (const layer of layers) blob(name, layer.blob, layer.digest);
      blob(name, configJson);
      manifest(name, 'latest', manifestJson, manifestType);
      manifest(name, sha256(manifestJson), manifestJson, manifestType);
    },
    get intercept() {
      return handlers.intercept;
    },
    set intercept(intercept) {
      handlers.intercept = intercept;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
