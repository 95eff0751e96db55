import { type container, timestampFromNs } from '@flotilla/proto';
import { type Implementation, serverStream, unary } from '@flotilla/rpc';
import type { Containers } from '../containers/containers.js';
import { listProcesses } from '../processes/process-list.js';
import { sampleContainer } from '../stats/container-stats.js';
import { StatsSampler } from '../stats/stats-sampler.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

/** What runs in a container and what it uses. */
export const observeRpc = ({ context }: Containers): Handlers => {
  const { store } = context;
  const sampler = new StatsSampler({
    resolve: (name) => store.resolve(name),
    get: (id) => store.get(id),
    sample: sampleContainer,
  });
  return {
    listProcesses: unary(async ({ name, psArgs }: container.ListProcessesRequest) => {
      const { titles, processes } = await listProcesses(context, name, psArgs);
      return { titles, processes: processes.map((values) => ({ values })) };
    }),

    streamStats: serverStream(async function* ({ name, stream, oneShot }: container.StreamStatsRequest, { signal }) {
      for await (const statsJson of sampler.read(name, { stream, oneShot, signal })) {
        yield { read: timestampFromNs(context.nowNs()), statsJson };
      }
    }),
  };
};
