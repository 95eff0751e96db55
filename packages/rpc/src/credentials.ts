import { readFile } from 'node:fs/promises';
import { ServerCredentials, credentials } from '@grpc/grpc-js';
import type { ChannelCredentials } from '@grpc/grpc-js';
import type { TlsFiles } from './address.js';

/** Mutual TLS for a server: a client without a certificate of the authority is turned away. */
export async function serverCredentials(tls: TlsFiles): Promise<ServerCredentials> {
  const [ca, cert, key] = await readAll(tls);
  return ServerCredentials.createSsl(ca, [{ cert_chain: cert, private_key: key }], true);
}

/** Mutual TLS for `connect`. */
export async function clientCredentials(tls: TlsFiles): Promise<ChannelCredentials> {
  const [ca, cert, key] = await readAll(tls);
  return credentials.createSsl(ca, key, cert);
}

const readAll = ({ caFile, certFile, keyFile }: TlsFiles) =>
  Promise.all([readFile(caFile), readFile(certFile), readFile(keyFile)]);
