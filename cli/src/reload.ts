import { randomUUID } from 'node:crypto';
import type { ServiceName } from '@flotilla/config';
import { messageOf } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { config } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';

const callLimitMs = 10_000;

/** A service with the configuration that it is to go on with. */
export interface ReloadPart {
  readonly service: ServiceName;
  readonly address: string;
  /** The whole file. */
  readonly configJson: string;
}

/**
 * Give every service its new configuration in two phases: all check theirs before any changes. `keep` writes the files
 * in between, for services that are started again meanwhile.
 *
 * @throws EngineError of the first service that refuses, or does not answer; nothing has changed then.
 */
export async function reloadServices(parts: readonly ReloadPart[], keep: () => void, log: Logger): Promise<void> {
  const reloadId = randomUUID();
  const options = { deadlineMs: callLimitMs };
  const clients = parts.map((part) => ({
    ...part,
    client: connect(config.ConfigServiceService, part.address, { log }),
  }));
  try {
    try {
      await Promise.all(
        clients.map(({ client, configJson }) => client.prepareConfig({ reloadId, configJson }, options)),
      );
      keep();
    } catch (error) {
      await Promise.allSettled(clients.map(({ client }) => client.rollbackConfig({ reloadId }, options)));
      throw error;
    }
    await Promise.all(
      clients.map(async ({ service, client }) => {
        try {
          await client.commitConfig({ reloadId }, options);
        } catch (error) {
          // It was started again meanwhile, from the new file.
          log.warn({ process: service, reason: messageOf(error) }, 'service did not take part to the end of a reload');
        }
      }),
    );
  } finally {
    for (const { client } of clients) client.close();
  }
}
