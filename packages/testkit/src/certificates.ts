import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';

/** Paths of PEM files. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** An authority's certificate and what it issued. */
export interface TestCertificates {
  readonly ca: string;
  readonly server: KeyPair;
  readonly client: KeyPair;
}

/** An authority, a server's certificate of it for an address, and a client's. */
export function makeCertificates(directory: string, address: string): TestCertificates {
  mkdirSync(directory, { recursive: true });
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  };
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.crt', '-subj', '/CN=test authority', '-days', '2');
  const issue = (name: string, extension: string): KeyPair => {
    openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    writeFileSync(`${directory}/${name}.ext`, extension);
    openssl(
      'x509',
      '-req',
      '-in',
      `${name}.csr`,
      '-CA',
      'ca.crt',
      '-CAkey',
      'ca.key',
      '-CAcreateserial',
      '-days',
      '2',
      '-extfile',
      `${name}.ext`,
      '-out',
      `${name}.crt`,
    );
    return { cert: `${directory}/${name}.crt`, key: `${directory}/${name}.key` };
  };
  return {
    ca: `${directory}/ca.crt`,
    server: issue('server', `subjectAltName=IP:${address}\n`),
    client: issue('client', 'extendedKeyUsage=clientAuth\n'),
  };
}
