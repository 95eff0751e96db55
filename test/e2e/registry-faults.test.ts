import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { ServerResponse } from 'node:http';
import { createServer, type AddressInfo } from 'node:net';
import {
  dockerArchive,
  gzipLayer,
  makeCertificates,
  makeImage,
  plainTar,
  startFaultProxy,
  startRegistry,
  waitFor,
  type Fault,
  type FaultProxy,
  type FixtureImage,
  type SeenRequest,
} from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enterNamespace } from './enter-namespace.js';
import { takeFootprint, takeRecords, type Footprint } from './footprint.js';
import { expectOneSentence } from './hostile-fixtures.js';
import { rawRequest } from './raw-http.js';
import { startScriptedRegistry, type ScriptedRegistry } from './scripted-registry.js';
import { runCommand, startTestEngine, type CommandResult, type TestEngine } from './test-engine.js';

/** Loopback registries are trusted with anything: certificates are looked at elsewhere only (RFC 5737's addresses). */
const remoteHost = '198.51.100.7';
/** hop with s3cret. */
const htpasswd = 'hop:$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n';

const isManifest = ({ path }: SeenRequest): boolean => path.includes('/manifests/');
/** Of a layer: the configuration, asked for first, goes through. */
const isLayer =
  (image: FixtureImage) =>
  ({ path }: SeenRequest) =>
    image.layers.some(({ digest }) => path.endsWith(digest));
const randomImage = (bytes: number): FixtureImage =>
  makeImage([gzipLayer(plainTar([['data', randomBytes(bytes)]]), 0)]);

describe('registries that fail', () => {
  let t: TestEngine;
  let inside: Disposable;
  let image: FixtureImage;
  let whole: Footprint;
  const open: AsyncDisposable[] = [];

  beforeAll(async () => {
    t = await startTestEngine({ pull: false, daemonJson: { 'max-download-attempts': 3 } });
    inside = enterNamespace(t.namespace);
    execFileSync('ip', ['address', 'add', `${remoteHost}/32`, 'dev', 'lo']);
    image = randomImage(300_000);
    await t.registry.push(image, 'app', 'latest');
    whole = await takeFootprint(t);
    await beginSilences();
  });
  afterAll(async () => {
    for (const it of open) await it[Symbol.asyncDispose]();
    inside[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
  });

  const proxied = async (decide: (seen: SeenRequest) => Fault | undefined): Promise<FaultProxy> => {
    const proxy = await startFaultProxy(t.registry.address);
    proxy.decide = decide;
    open.push(proxy);
    return proxy;
  };
  const scripted = async (options: Parameters<typeof startScriptedRegistry>[0] = {}): Promise<ScriptedRegistry> => {
    const registry = await startScriptedRegistry(options);
    open.push(registry);
    return registry;
  };
  const timed = async (args: readonly string[], limitMs: number): Promise<CommandResult> => {
    const begun = performance.now();
    const result = await t.docker(args);
    expect(performance.now() - begun).toBeLessThan(limitMs);
    return result;
  };

  /** Pulls that wait for time-outs, all begun first. */
  const silences = {
    'to be asked at all': () => ({ kind: 'hang' }),
    'with the manifest': (seen) => (isManifest(seen) ? { kind: 'hang' } : undefined),
    'inside the manifest': (seen) => (isManifest(seen) ? { kind: 'stall', afterBytes: 50 } : undefined),
    'once inside a layer': (seen, { seen: all }) =>
      isLayer(silent)(seen) && all.filter(isLayer(silent)).length === 1
        ? { kind: 'stall', afterBytes: 300_000 }
        : undefined,
  } satisfies Record<string, (seen: SeenRequest, proxy: FaultProxy) => Fault | undefined>;
  const silent = randomImage(1_000_000);
  const pulls = {} as Record<keyof typeof silences, Promise<{ result: CommandResult; tookMs: number }>>;
  const beginSilences = async (): Promise<void> => {
    await t.registry.push(silent, 'silent', 'latest');
    for (const name of Object.keys(silences) as (keyof typeof silences)[]) {
      const proxy = await proxied((seen): Fault | undefined => silences[name](seen, proxy));
      const begun = performance.now();
      const reference = `${proxy.address}/silent`;
      pulls[name] = t.docker(['pull', reference]).then(async (result) => {
        const tookMs = performance.now() - begun;
        if (result.code === 0) await t.ok('rmi', reference);
        return { result, tookMs };
      });
      if (name === 'once inside a layer')
        await waitFor(() => proxy.seen.some(isLayer(silent)), { what: 'the silence' });
    }
  };

  describe('refusals of the manifest', () => {
    it.each<[number, Record<string, string>, string, RegExp]>([
      [401, {}, '', /unauthorized: authentication required/],
      [401, { 'www-authenticate': 'Basic realm="x"' }, '', /no basic auth credentials/],
      [401, { 'www-authenticate': 'Bearer realm="not a url"' }, '', /unauthorized|invalid realm/],
      [
        403,
        {},
        '{"errors":[{"code":"DENIED","message":"no entry"}]}',
        /pull access denied for \S+, repository does not exist or may require 'docker login': denied: no entry/,
      ],
      [
        404,
        {},
        '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}',
        /manifest for \S+ not found: manifest unknown/,
      ],
      [
        404,
        {},
        '{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}',
        /repository \S+ not found: name unknown/,
      ],
      [404, {}, '<html>nothing here</html>', /not found/],
      [429, { 'retry-after': '1' }, '', /toomanyrequests: too many requests/],
      [500, {}, '', /received unexpected HTTP status: 500 Internal Server Error/],
      [502, {}, '<html>Bad Gateway</html>', /received unexpected HTTP status: 502 Bad Gateway/],
      [418, {}, '{"errors":[{"code":"../../\\u001b[2J","message":"\\u001b[31mred"}]}', /418/],
    ])('%i %j %s', async (status, headers, body, phrase) => {
      const records = await takeRecords(t);
      const proxy = await proxied((seen) => (isManifest(seen) ? { kind: 'status', status, headers, body } : undefined));
      const result = await timed(['pull', `${proxy.address}/app`], 15_000);
      expectOneSentence(result, phrase);
      expect(result.stderr).not.toContain('\u001b');
      await records.expectUnchanged();
    });

    it('500 and 429 that pass are not told', async () => {
      let left = 2;
      const proxy = await proxied((seen) =>
        isManifest(seen) && left-- > 0
          ? { kind: 'status', status: left > 0 ? 500 : 429, headers: { 'retry-after': '0' } }
          : undefined,
      );
      await t.ok('pull', `${proxy.address}/app`);
      await t.ok('rmi', `${proxy.address}/app`);
    });
  });

  describe('a blob', () => {
    it.each<[string, Fault, RegExp]>([
      ['403', { kind: 'status', status: 403 }, /denied/],
      [
        '404',
        { kind: 'status', status: 404, body: '{"errors":[{"code":"BLOB_UNKNOWN","message":"x"}]}' },
        /unknown blob/,
      ],
      ['429', { kind: 'status', status: 429, headers: { 'retry-after': '0' } }, /toomanyrequests: too many requests/],
      ['500', { kind: 'status', status: 500 }, /received unexpected HTTP status: 500 Internal Server Error/],
      ['a connection cut at once', { kind: 'cut', afterBytes: 0 }, /unexpected EOF|connection reset by peer/],
      ['a wrong byte', { kind: 'corrupt', atByte: 1000 }, /filesystem layer verification failed for digest sha256:/],
    ])('answered with %s', async (_what, fault, phrase) => {
      const records = await takeRecords(t);
      const fresh = randomImage(50_000);
      await t.registry.push(fresh, 'fresh', 'latest');
      const proxy = await proxied((seen) => (isLayer(fresh)(seen) ? fault : undefined));
      expectOneSentence(await timed(['pull', `${proxy.address}/fresh`], 20_000), phrase);
      await records.expectUnchanged();
    });

    it('cut in the middle is resumed where it ended', async () => {
      const big = randomImage(2_500_000);
      await t.registry.push(big, 'big', 'latest');
      let cuts = 2;
      const proxy = await proxied((seen) =>
        isLayer(big)(seen) && cuts-- > 0 ? { kind: 'cut', afterBytes: 600_000 } : undefined,
      );
      const out = await t.ok('pull', `${proxy.address}/big`);
      expect(out).toContain('Status: Downloaded newer image');
      const ranges = proxy.seen.filter((seen) => isLayer(big)(seen)).map(({ range }) => range);
      expect(ranges).toHaveLength(3);
      expect(ranges[0]).toBeUndefined();
      for (const range of ranges.slice(1)) expect(range).toMatch(/^bytes=\d{5,7}-$/);
      await t.ok('rmi', `${proxy.address}/big`);
    });

    it('cut in the middle by a registry that cannot resume is begun again', async () => {
      const big = randomImage(2_500_000);
      await t.registry.push(big, 'big', 'again');
      let cuts = 1;
      const proxy = await proxied((seen) => {
        if (!isLayer(big)(seen)) return undefined;
        return cuts-- > 0 ? { kind: 'cut', afterBytes: 600_000 } : { kind: 'ignore-range' };
      });
      await t.ok('pull', '-q', `${proxy.address}/big:again`);
      await t.ok('rmi', `${proxy.address}/big:again`);
    });

    it.each<[string, (response: ServerResponse, blob: Buffer) => void, RegExp]>([
      [
        'a Content-Length below the blob',
        (response, blob) => {
          response.writeHead(200, { 'content-length': blob.length - 100 });
          response.end(blob.subarray(0, blob.length - 100));
        },
        /verification failed for digest sha256:/,
      ],
      [
        'a Content-Length above the blob',
        (response, blob) => {
          response.writeHead(200, { 'content-length': blob.length + 100 });
          response.write(blob);
          setTimeout(() => response.destroy(), 50);
        },
        /verification failed for digest sha256:|unexpected EOF/,
      ],
      [
        'an endless body',
        (response, blob) => {
          response.writeHead(200, {});
          const more = (): void => {
            while (!response.destroyed && response.write(blob));
            if (!response.destroyed) response.once('drain', more);
          };
          more();
        },
        /verification failed for digest sha256:/,
      ],
      [
        'a redirect in a circle',
        (response) => {
          response.writeHead(307, { location: '?again=1' });
          response.end();
        },
        /stopped after \d+ redirects/,
      ],
      [
        'a redirect to a file of this machine',
        (response) => {
          response.writeHead(307, { location: 'file:///etc/passwd' });
          response.end();
        },
        /stopped after \d+ redirects|unsupported protocol/,
      ],
      [
        'a redirect to nobody',
        (response) => {
          response.writeHead(307, { location: 'http://127.0.0.1:1/blob' });
          response.end();
        },
        /dial tcp 127\.0\.0\.1:1: connect: connection refused/,
      ],
      [
        'huge headers',
        (response, blob) => {
          response.writeHead(200, { 'x-padding': 'x'.repeat(200_000) });
          response.end(blob);
        },
        /header/i,
      ],
    ])('with %s', async (_what, answer, phrase) => {
      const records = await takeRecords(t);
      const registry = await scripted();
      const odd = randomImage(30_000);
      registry.image('odd', odd);
      const blob = odd.layers[0]?.blob ?? Buffer.alloc(0);
      registry.intercept = ({ url }, response) => {
        if (url?.includes(odd.layers[0]?.digest ?? 'no layer') !== true) return false;
        answer(response, blob);
        return true;
      };
      expectOneSentence(await timed(['pull', `${registry.address}/odd`], 20_000), phrase);
      await records.expectUnchanged();
    });

    it('is fetched from where a redirect leads, without the credentials', async () => {
      const [registry, storage] = [await scripted(), await scripted()];
      const moved = randomImage(30_000);
      registry.image('moved', moved);
      storage.image('moved', moved);
      const seen: (string | undefined)[] = [];
      registry.intercept = ({ url, headers }, response) => {
        if (headers.authorization === undefined) {
          response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' });
          response.end();
          return true;
        }
        if (url?.includes('/blobs/') !== true) return false;
        response.writeHead(307, { location: `http://${storage.address}${url}` });
        response.end();
        return true;
      };
      storage.intercept = ({ headers }) => {
        seen.push(headers.authorization);
        return false;
      };
      await t.docker(['login', '-u', 'hop', '--password-stdin', registry.address], { input: 's3cret' });
      await t.ok('pull', `${registry.address}/moved`);
      expect(seen).toEqual([undefined, undefined]);
      await t.ok('rmi', `${registry.address}/moved`);
    });
  });

  it('asks for basic authentication', async () => {
    const port = 5001;
    open.push(await startRegistry({ directory: `${t.directory}/basic`, port, namespace: t.namespace, htpasswd }));
    const address = `127.0.0.1:${port}`;
    const source = `docker-archive:${t.directory}/app.tar`;
    writeFileSync(`${t.directory}/app.tar`, dockerArchive(image, ['app:1']));
    const copy = [
      'copy',
      '--dest-tls-verify=false',
      '--dest-creds=hop:s3cret',
      source,
      `docker://${address}/app:latest`,
    ];
    expect((await runCommand('skopeo', ['--insecure-policy', ...copy])).code).toBe(0);
    await t.docker(['logout', address]);

    const records = await takeRecords(t);
    expectOneSentence(await t.docker(['pull', `${address}/app`]), /no basic auth credentials/);
    const wrong = await t.docker(['login', '-u', 'hop', '--password-stdin', address], { input: 'guess' });
    expectOneSentence(wrong, /login attempt to http:\/\/\S+\/v2\/ failed with status: 401 Unauthorized/);
    expect(wrong.stderr).not.toContain('guess');
    await records.expectUnchanged();

    const right = await t.docker(['login', '-u', 'hop', '--password-stdin', address], { input: 's3cret' });
    expect(right.stdout).toContain('Login Succeeded');
    await t.ok('pull', `${address}/app`);
    await t.ok('rmi', `${address}/app`);
    await t.docker(['logout', address]);
    // What the engine knows of the image is no way around the registry's door.
    expectOneSentence(await t.docker(['pull', `${address}/app`]), /no basic auth credentials/);
    await records.expectUnchanged();
    expect(readFileSync(t.engine.logFile, 'utf8')).not.toMatch(/s3cret|guess|aG9wOnMzY3JldA/);
  });

  it('asks for bearer tokens', async () => {
    const registry = await scripted();
    registry.image('team/app', image);
    const asked: URL[] = [];
    let tokens = 0;
    const mode = { current: 'right' };
    registry.intercept = ({ url = '', headers }, response) => {
      if (url.startsWith('/token')) {
        asked.push(new URL(url, `http://${registry.address}`));
        if (mode.current === 'garbage') response.end('<html>');
        else if (mode.current === 'empty') response.end('{}');
        else if (mode.current === 'broken') response.writeHead(500).end();
        else if (headers.authorization !== `Basic ${Buffer.from('hop:s3cret').toString('base64')}`) {
          response.writeHead(401, { 'content-type': 'application/json' });
          response.end('{"details":"incorrect username or password"}');
        } else response.end(JSON.stringify({ token: `token-${++tokens}`, expires_in: 300 }));
        return true;
      }
      // Each token is good until a newer one has been given.
      if (headers.authorization === `Bearer token-${tokens}` && mode.current !== 'expired') return false;
      if (mode.current === 'expired') mode.current = 'right';
      const challenge = `Bearer realm="http://${registry.address}/token",service="scripted",scope="repository:team/app:pull"`;
      response.writeHead(401, { 'www-authenticate': challenge, 'content-type': 'application/json' });
      response.end('{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}');
      return true;
    };
    const reference = `${registry.address}/team/app`;
    const records = await takeRecords(t);
    expectOneSentence(await t.docker(['pull', reference]), /incorrect username or password|unauthorized/);
    const logIn = (password: string) =>
      t.docker(['login', '-u', 'hop', '--password-stdin', registry.address], { input: password });
    expectOneSentence(await logIn('guess'), /incorrect username or password|unauthorized/);
    for (const broken of ['garbage', 'empty', 'broken']) {
      mode.current = broken;
      expectOneSentence(await timed(['pull', reference], 15_000), /./);
    }
    await records.expectUnchanged();
    mode.current = 'right';
    expect((await logIn('s3cret')).stdout).toContain('Login Succeeded');
    await t.ok('pull', reference);
    const last = asked.at(-1);
    expect([
      last?.searchParams.get('scope'),
      last?.searchParams.get('service'),
      last?.searchParams.get('account'),
    ]).toEqual(['repository:team/app:pull', 'scripted', 'hop']);
    await t.ok('rmi', reference);
    mode.current = 'expired';
    await t.ok('pull', reference);
    await t.ok('rmi', reference);
    await t.docker(['logout', registry.address]);
    await records.expectUnchanged();
    expect(readFileSync(t.engine.logFile, 'utf8')).not.toMatch(/s3cret|guess|token-\d/);
  });

  it('shows a certificate, and asks for one, as certs.d has them', async () => {
    const certificates = makeCertificates(`${t.directory}/certificates`, remoteHost);
    const tls = { cert: readFileSync(certificates.server.cert), key: readFileSync(certificates.server.key) };
    const registry = await scripted({ host: remoteHost, tls });
    const ca = readFileSync(certificates.ca);
    const mutual = await scripted({
      host: remoteHost,
      tls: { ...tls, ca, requestCert: true, rejectUnauthorized: true },
    });
    for (const it of [registry, mutual]) it.image('secure', image);
    const folders = [registry, mutual].map(({ address }) => `/etc/docker/certs.d/${address}`);
    const records = await takeRecords(t);
    try {
      expectOneSentence(
        await timed(['pull', `${registry.address}/secure`], 10_000),
        /tls: failed to verify certificate: x509: certificate signed by unknown authority/,
      );
      await records.expectUnchanged();
      for (const folder of folders) {
        mkdirSync(folder, { recursive: true });
        cpSync(certificates.ca, `${folder}/ca.crt`);
      }
      // What was wrong a moment ago is looked at anew.
      await t.ok('pull', `${registry.address}/secure`);
      await t.ok('rmi', `${registry.address}/secure`);

      expectOneSentence(await timed(['pull', `${mutual.address}/secure`], 20_000), /tls: |connection reset|EOF/);
      cpSync(certificates.client.cert, `${folders[1] ?? ''}/client.cert`);
      expectOneSentence(
        await timed(['pull', `${mutual.address}/secure`], 10_000),
        /missing key client\.key for client certificate client\.cert/,
      );
      cpSync(certificates.client.key, `${folders[1] ?? ''}/client.key`);
      await t.ok('pull', `${mutual.address}/secure`);
      await t.ok('rmi', `${mutual.address}/secure`);
      await records.expectUnchanged();
    } finally {
      for (const folder of folders) rmSync(folder, { recursive: true, force: true });
    }
  });

  it('takes no notice of a garbled X-Registry-Auth header, as dockerd', async () => {
    const path = `/v1.51/images/create?fromImage=${encodeURIComponent(`${t.registry.address}/app`)}&tag=latest`;
    for (const header of [
      'not base64 !!',
      Buffer.from('[1]').toString('base64url'),
      Buffer.from('{"username":5}').toString('base64url'),
    ]) {
      const answer = await rawRequest(t.engine.socket, 'POST', path, undefined, { 'x-registry-auth': header });
      expect([header, answer.status]).toEqual([header, 200]);
    }
    await t.ok('rmi', `${t.registry.address}/app`);
  });

  describe('registries that hang or speak no HTTP', () => {
    it.each<[keyof typeof silences, RegExp]>([
      ['to be asked at all', /Client\.Timeout exceeded while awaiting headers/],
      ['with the manifest', /Client\.Timeout exceeded while awaiting headers/],
      ['inside the manifest', /i\/o timeout/],
    ])('%s', async (silence, phrase) => {
      const { result, tookMs } = await pulls[silence];
      expectOneSentence(result, phrase);
      expect(tookMs).toBeLessThan(45_000);
    });

    it('a blob that falls silent is resumed', async () => {
      const { result } = await pulls['once inside a layer'];
      expect(result.stdout).toContain('Downloaded newer image');
    });

    it('a client that leaves ends the wait', async () => {
      const quiet = randomImage(40_000);
      await t.registry.push(quiet, 'quiet', 'latest');
      const proxy = await proxied((seen) => (isLayer(quiet)(seen) ? { kind: 'hang' } : undefined));
      const stop = new AbortController();
      const pull = t.docker(['pull', `${proxy.address}/quiet`], { signal: stop.signal });
      await waitFor(() => proxy.seen.some(isLayer(quiet)), { what: 'the request for the layer' });
      stop.abort();
      await expect(pull).rejects.toThrow();
      const blobs = (): string =>
        execFileSync('find', [`${t.engine.dataRoot}/image/content`, '-type', 'f'], { encoding: 'utf8' });
      await waitFor(() => !blobs().includes(quiet.id.slice(7)), { what: 'the blobs to go' });
    });

    it('a server of something else', async () => {
      const server = createServer((socket) => {
        socket.on('error', () => undefined);
        socket.end('220 mail.example.com ESMTP\r\n');
      });
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      const { port } = server.address() as AddressInfo;
      expectOneSentence(
        await timed(['pull', `127.0.0.1:${port}/app`], 15_000),
        /Get "http:\/\/127\.0\.0\.1:\d+\/v2\/": \S/,
      );
      server.close();
    });

    it('nobody', async () => {
      expectOneSentence(
        await timed(['pull', '127.0.0.1:9/app'], 5000),
        /Get "http:\/\/127\.0\.0\.1:9\/v2\/": dial tcp 127\.0\.0\.1:9: connect: connection refused/,
      );
      expectOneSentence(
        await timed(['pull', 'no-such-host.invalid/app'], 15_000),
        /dial tcp: lookup no-such-host\.invalid/,
      );
    });
  });

  it('goes on serving, and all of this has left nothing', async () => {
    await t.ok('pull', '-q', `${t.registry.address}/busybox`);
    expect(await t.ok('run', '--rm', `${t.registry.address}/busybox`, 'echo', 'ok')).toBe('ok');
    await t.ok('rmi', `${t.registry.address}/busybox`);
    for (const it of open.splice(0)) await it[Symbol.asyncDispose]();
    await whole.expectUnchanged();
  });
});
