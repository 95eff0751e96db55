import type { Logger } from '@flotilla/log';
import { rpcHealth } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import type { Health } from './health-watch.js';

const { SERVING } = rpcHealth.HealthCheckResponse_ServingStatus;
const checkDeadlineMs = 2500;

export type HealthClient = ReturnType<typeof healthClient>;

export const healthClient = (address: string, log: Logger) => connect(rpcHealth.HealthService, address, { log });

/** Ask a service once. */
export async function checkHealth(client: HealthClient): Promise<Health> {
  try {
    const { status } = await client.check({ service: '' }, { deadlineMs: checkDeadlineMs, retryUnavailableMs: 0 });
    return status === SERVING ? 'SERVING' : 'NOT_SERVING';
  } catch {
    return 'UNREACHABLE';
  }
}
