import { Metadata } from '@grpc/grpc-js';
import { engineIdentity, decodeIdentity, encodeIdentity } from './identity.js';
import type { Identity } from './identity.js';

/** What rpc needs of the hybrid logical clock of packages/store: nanoseconds since the epoch, strictly increasing. */
export interface Clock {
  now(): bigint;
  observe(remote: bigint): void;
}

const requestIdKey = 'flotilla-request-id';
const clockKey = 'flotilla-hlc';
const identityKey = 'flotilla-identity';

/** Headers of an outgoing call. */
export function callMetadata(requestId: string, clock: Clock | undefined, identity: Identity | undefined): Metadata {
  const metadata = new Metadata();
  metadata.set(requestIdKey, requestId);
  if (clock !== undefined) metadata.set(clockKey, clock.now().toString());
  if (identity !== undefined) metadata.set(identityKey, encodeIdentity(identity));
  return metadata;
}

/** Trailers of an answer: the callee's clock, so that the caller's later events sort behind the callee's. */
export function answerMetadata(clock: Clock | undefined): Metadata {
  const metadata = new Metadata();
  if (clock !== undefined) metadata.set(clockKey, clock.now().toString());
  return metadata;
}

/** Move `clock` past the other side's; a missing or malformed time is ignored. */
export function observeClock(metadata: Metadata, clock: Clock | undefined): void {
  if (clock === undefined) return;
  const text = first(metadata, clockKey);
  if (text !== undefined && /^\d{1,20}$/.test(text)) clock.observe(BigInt(text));
}

export function requestIdOf(metadata: Metadata): string | undefined {
  return first(metadata, requestIdKey);
}

/** @throws when the header is there but malformed. */
export function identityOf(metadata: Metadata): Identity {
  const header = first(metadata, identityKey);
  return header === undefined ? engineIdentity : decodeIdentity(header);
}

function first(metadata: Metadata, key: string): string | undefined {
  const value = metadata.get(key)[0];
  return typeof value === 'string' ? value : undefined;
}
