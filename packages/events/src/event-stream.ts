import type { StreamConfig } from 'nats';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf, unavailable } from '@flotilla/errors';
import type { NatsAddress } from './nats-link.js';
import { eventStream, eventStreamSubjects } from './subjects.js';

export interface EventRetention {
  /** Default 7 days. */
  maxAgeMs?: number;
  /** Default 256 MiB. */
  maxBytes?: number;
}

/** JetStream's code for "stream not found". */
const streamNotFound = 10059;

/**
 * Make the stream of all events, or give it these limits. The launcher calls it; services only publish.
 *
 * @throws EngineError `unavailable` if NATS does not answer within `timeoutMs`.
 */
export async function ensureStream(
  nats: NatsAddress,
  retention: EventRetention = {},
  timeoutMs = 10_000,
): Promise<void> {
  const { DiscardPolicy, nanos, RetentionPolicy, StorageType } = await import('nats');
  const config: Partial<StreamConfig> = {
    subjects: [eventStreamSubjects],
    retention: RetentionPolicy.Limits,
    discard: DiscardPolicy.Old,
    storage: StorageType.File,
    max_age: nanos(retention.maxAgeMs ?? 7 * 24 * 3_600_000),
    max_bytes: retention.maxBytes ?? 256 << 20,
    duplicate_window: nanos(120_000),
    num_replicas: 1,
  };
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    try {
      await putStream(nats, config);
      return;
    } catch (error) {
      if (Date.now() >= deadline) {
        throw unavailable(`the event stream cannot be made: ${messageOf(error)}`, { cause: error });
      }
      await delay(100);
    }
  }
}

async function putStream({ url, user, pass }: NatsAddress, config: Partial<StreamConfig>): Promise<void> {
  const { connect, NatsError } = await import('nats');
  const connection = await connect({
    servers: url,
    ...(user === undefined ? {} : { user }),
    ...(pass === undefined ? {} : { pass }),
    reconnect: false,
    timeout: 2000,
  });
  try {
    const { streams } = await connection.jetstreamManager({ timeout: 5000 });
    try {
      await streams.update(eventStream, config);
    } catch (error) {
      if (!(error instanceof NatsError) || error.api_error?.err_code !== streamNotFound) throw error;
      await streams.add({ ...config, name: eventStream });
    }
  } finally {
    await connection.close();
  }
}
