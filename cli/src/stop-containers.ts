import type { Logger } from '@flotilla/log';
import { container } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';

/** The service itself ends what takes too long; with a timeout of -1 it waits for ever, which here means a day. */
const callLimitMs = 24 * 60 * 60_000;

/**
 * Have the container service stop every container.
 *
 * @param timeoutSeconds for all together; negative: for ever.
 * @returns ids of those that ran.
 */
export async function stopContainers(address: string, timeoutSeconds: number, log: Logger): Promise<string[]> {
  const client = connect(container.ContainerServiceService, address, { log });
  try {
    return (await client.stopAllContainers({ timeoutSeconds }, { deadlineMs: callLimitMs })).stopped;
  } finally {
    client.close();
  }
}
