import { type container, timestampFromNs } from '@flotilla/proto';
import { type Implementation, serverStream, unary } from '@flotilla/rpc';
import type { Containers } from '../containers/containers.js';
import { listProcesses } from '../processes/process-list.js';
import { containerStats } from '../stats/container-stats.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

/** What runs in a container and what it uses. */
export const observeRpc = ({ context }: Containers): Handlers => ({
  listProcesses: unary(async ({ name, psArgs }: container.ListProcessesRequest) => {
    const { titles, processes } = await listProcesses(context, name, psArgs);
    return { titles, processes: processes.map((values) => ({ values })) };
  }),

  streamStats: serverStream(async function* ({ name, stream, oneShot }: container.StreamStatsRequest, { signal }) {
    for await (const statsJson of containerStats(context, name, { stream, oneShot, signal })) {
      yield { read: timestampFromNs(context.nowNs()), statsJson };
    }
  }),
});
