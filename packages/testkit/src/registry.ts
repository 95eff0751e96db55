import type { ChildProcess } from 'node:child_process';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { TestCertificates } from './certificates.js';
import type { FixtureImage } from './image-fixtures.js';
import type { NetworkNamespace } from './network-namespace.js';

/** A real docker-registry (Debian's distribution 2.8) on 127.0.0.1, storing under a directory of the test. */
export interface Registry extends AsyncDisposable {
  /** `127.0.0.1:<port>`: the prefix of references. */
  readonly address: string;
  /** Upload an image under repository:tag. */
  push(image: FixtureImage, repository: string, tag: string): Promise<void>;
  /** Upload a manifest or an index alone, under a tag or its digest. */
  pushManifest(repository: string, reference: string, manifest: { json: Buffer; mediaType: string }): void;
}

/** What a registry asks of its clients. */
export interface RegistryOptions {
  directory: string;
  port: number;
  /** Run (and be reached) inside this namespace. */
  namespace?: NetworkNamespace;
  /** htpasswd bcrypt line(s). */
  htpasswd?: string;
  /** `clients`: only who has a certificate of its authority is served. */
  tls?: { certificate: string; key: string; clients?: TestCertificates };
  /** `user:password` that `push` uses where htpasswd asks. */
  pushAs?: string;
  /** File for a line per request, in the Apache format. */
  accessLog?: string;
}

/** Start a registry and wait until it answers. */
export async function startRegistry(options: RegistryOptions): Promise<Registry> {
  mkdirSync(options.directory, { recursive: true });
  const configPath = join(options.directory, 'config.yml');
  const lines = [
    'version: 0.1',
    `log: { level: warn, accesslog: { disabled: ${options.accessLog === undefined} } }`,
    `storage: { filesystem: { rootdirectory: ${join(options.directory, 'data')} }, delete: { enabled: true } }`,
    `http: { addr: "127.0.0.1:${options.port}"${tlsBlock(options.tls)} }`,
  ];
  if (options.htpasswd !== undefined) {
    writeFileSync(join(options.directory, 'htpasswd'), options.htpasswd);
    lines.push(`auth: { htpasswd: { realm: test, path: ${join(options.directory, 'htpasswd')} } }`);
  }
  writeFileSync(configPath, lines.join('\n'));
  const start = options.namespace?.spawn.bind(options.namespace) ?? spawn;
  const log = options.accessLog === undefined ? 'ignore' : openSync(options.accessLog, 'a');
  const child: ChildProcess = start('docker-registry', ['serve', configPath], { stdio: ['ignore', log, 'pipe'] });
  if (log !== 'ignore') closeSync(log);
  let errors = '';
  child.stderr?.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4000)));
  const address = `127.0.0.1:${options.port}`;
  const scheme = options.tls ? 'https' : 'http';
  const curl = (args: string[], input?: Buffer): string => {
    const { clients } = options.tls ?? {};
    const proof = clients === undefined ? [] : ['--cert', clients.client.cert, '--key', clients.client.key];
    if (options.pushAs !== undefined) proof.push('-u', options.pushAs);
    const argv = ['-sS', '-k', '--max-time', '60', ...proof, ...args];
    const [file, list] = options.namespace ? options.namespace.command('curl', argv) : ['curl', argv];
    return execFileSync(file, list, { input, encoding: 'utf8', maxBuffer: 64 << 20, stdio: ['pipe', 'pipe', 'pipe'] });
  };
  const deadline = Date.now() + 15_000;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`docker-registry ended with ${child.exitCode}: ${errors}`);
    try {
      curl(['-o', '/dev/null', `${scheme}://${address}/`]);
      break;
    } catch (cause) {
      await delay(20);
      if (Date.now() > deadline) throw new Error(`docker-registry does not answer: ${errors}`, { cause });
    }
  }
  const expect = (status: string, wanted: string, what: string): void => {
    if (status !== wanted) throw new Error(`${what}: registry answered ${status}`);
  };
  const uploadBlob = (repository: string, digest: string, bytes: Buffer): void => {
    const head = curl([
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      '-I',
      `${scheme}://${address}/v2/${repository}/blobs/${digest}`,
    ]);
    if (head === '200') return;
    const headers = curl([
      '-D',
      '-',
      '-o',
      '/dev/null',
      '-X',
      'POST',
      `${scheme}://${address}/v2/${repository}/blobs/uploads/`,
    ]);
    const location = /^location:\s*(\S+)/im.exec(headers)?.[1];
    if (location === undefined) throw new Error(`no upload location: ${headers}`);
    const url = new URL(location, `${scheme}://${address}`);
    url.searchParams.set('digest', digest);
    expect(
      curl(
        [
          '-o',
          '/dev/null',
          '-w',
          '%{http_code}',
          '-X',
          'PUT',
          '-H',
          'content-type: application/octet-stream',
          '--data-binary',
          '@-',
          url.href,
        ],
        bytes,
      ),
      '201',
      `blob ${digest}`,
    );
  };
  const pushManifest: Registry['pushManifest'] = (repository, reference, { json, mediaType }) => {
    expect(
      curl(
        [
          '-o',
          '/dev/null',
          '-w',
          '%{http_code}',
          '-X',
          'PUT',
          '-H',
          `content-type: ${mediaType}`,
          '--data-binary',
          '@-',
          `${scheme}://${address}/v2/${repository}/manifests/${reference}`,
        ],
        json,
      ),
      '201',
      `manifest ${repository}:${reference}`,
    );
  };
  return {
    address,
    pushManifest,
    push(image, repository, tag) {
      for (const layer of image.layers) uploadBlob(repository, layer.digest, layer.blob);
      uploadBlob(repository, image.id, image.configJson);
      pushManifest(repository, tag, { json: image.manifestJson, mediaType: image.manifestType });
      return Promise.resolve();
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    },
  };
}

function tlsBlock(tls: RegistryOptions['tls']): string {
  if (tls === undefined) return '';
  const clients = tls.clients === undefined ? '' : `, clientcas: [ ${tls.clients.ca} ]`;
  return `, tls: { certificate: ${tls.certificate}, key: ${tls.key}${clients} }`;
}
