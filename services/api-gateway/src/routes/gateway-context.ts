import type { GatewayConfig } from '@flotilla/config';
import type { EventReader } from '@flotilla/events';
import type { Logger } from '@flotilla/log';
import type { UnaryCallOptions } from '@flotilla/rpc';
import type { ApiCall } from '../http/api-call.js';
import type { ReadModel } from '../model/read-model.js';
import type { Peers } from '../peers.js';

/** What handlers work with. */
export interface GatewayContext {
  readonly config: GatewayConfig;
  readonly peers: Peers;
  readonly model: ReadModel;
  readonly events: Pick<EventReader, 'read'>;
  readonly log: Logger;
  /** Where files and FIFOs change hands between services on one machine; may be missing. */
  readonly exchangeDir: string;
}

/** A call that ends quickly or fails. */
export const QUICK_MS = 15_000;
/** A call that may have to prepare file systems, stop processes or wait for other services. */
export const SLOW_MS = 120_000;
/** A call that walks or writes a lot of data. */
export const BULK_MS = 3_600_000;

/** Options of a reading call: it ends with the client. */
export const reading = (call: ApiCall, deadlineMs = QUICK_MS): UnaryCallOptions => ({
  deadlineMs,
  signal: call.signal,
});

/** Options of a changing call: it carries the request's id and goes on when the client has gone, as in dockerd. */
export const changing = (call: ApiCall, deadlineMs = SLOW_MS): UnaryCallOptions => ({
  deadlineMs,
  requestId: call.requestId,
});
