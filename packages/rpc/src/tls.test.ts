import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import forge from 'node-forge';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isEngineError } from '@flotilla/errors';
import { silentLogger } from '@flotilla/log';
import { clientCredentials, connect, serve, serviceEntry, unary } from './index.js';
import type { TlsFiles } from './index.js';
import { NoteService } from './test-service.js';

const log = silentLogger();
const { pki } = forge;

interface Authority {
  name: string;
  cert: forge.pki.Certificate;
  keys: forge.pki.rsa.KeyPair;
}

function makeCertificate(
  subject: string,
  issuer?: Authority,
): { cert: forge.pki.Certificate; keys: forge.pki.rsa.KeyPair } {
  const keys = pki.rsa.generateKeyPair(2048);
  const cert = pki.createCertificate();
  cert.publicKey = keys.publicKey;
  cert.serialNumber = '01';
  cert.validity.notBefore = new Date(Date.now() - 60_000);
  cert.validity.notAfter = new Date(Date.now() + 3_600_000);
  cert.setSubject([{ name: 'commonName', value: subject }]);
  cert.setIssuer([{ name: 'commonName', value: issuer?.name ?? subject }]);
  cert.setExtensions(
    issuer === undefined
      ? [{ name: 'basicConstraints', cA: true }]
      : [{ name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] }],
  );
  cert.sign((issuer?.keys ?? keys).privateKey, forge.md.sha256.create());
  return { cert, keys };
}

describe('mutual TLS', () => {
  let dir: string;
  const files = new Map<string, TlsFiles>();

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'flotilla-tls-'));
    const write = async (name: string, text: string) => {
      const path = join(dir, name);
      await writeFile(path, text, { mode: 0o600 });
      return path;
    };
    for (const name of ['ours', 'foreign']) {
      const authority = { name, ...makeCertificate(name) };
      const caFile = await write(`${name}-ca.pem`, pki.certificateToPem(authority.cert));
      for (const role of ['server', 'client']) {
        const { cert, keys } = makeCertificate(role, authority);
        const certFile = await write(`${name}-${role}.pem`, pki.certificateToPem(cert));
        const keyFile = await write(`${name}-${role}-key.pem`, pki.privateKeyToPem(keys.privateKey));
        files.set(`${name}-${role}`, { caFile, certFile, keyFile });
      }
    }
  });
  afterAll(() => rm(dir, { recursive: true, force: true }));

  const of = (name: string): TlsFiles => {
    const found = files.get(name);
    if (found === undefined) throw new Error(name);
    return found;
  };

  it('admits clients of our authority and nobody else', async () => {
    await using server = await serve({
      listen: { kind: 'tcp', host: '127.0.0.1', port: 0, tls: of('ours-server') },
      services: [serviceEntry(NoteService, { one: unary((note) => Promise.resolve(note)) })],
      log,
      service: 'note',
      version: '1',
    });
    const ask = async (credentials?: Awaited<ReturnType<typeof clientCredentials>>) => {
      const client = connect(NoteService, server.address, {
        log,
        ...(credentials === undefined ? {} : { credentials }),
      });
      try {
        return await client.one({ text: 'hej' }, { deadlineMs: 3000, retryUnavailableMs: 300 });
      } finally {
        client.close();
      }
    };
    expect(await ask(await clientCredentials(of('ours-client')))).toEqual({ text: 'hej' });
    const foreign = { ...of('foreign-client'), caFile: of('ours-client').caFile };
    for (const credentials of [
      undefined,
      await clientCredentials(foreign),
      await clientCredentials(of('foreign-client')),
    ]) {
      const error: unknown = await ask(credentials).catch((thrown: unknown) => thrown);
      expect(isEngineError(error, 'unavailable')).toBe(true);
    }
  });
});
