import { container, type image } from '@flotilla/proto';
import { type Implementation, serverStream, type TypedClient, unary } from '@flotilla/rpc';
import { refuseRemoved } from '../containers/committer.js';
import type { Containers } from '../containers/containers.js';
import { containerExported } from '../containers/events.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

/** What the image service does with a container's layer: the name is resolved and the state checked here. */
export const imageContentRpc = (
  containers: Containers,
  images: TypedClient<typeof image.ImageServiceService>,
): Handlers => ({
  listChanges: serverStream(({ name }, { signal }) => {
    const { id } = containers.context.store.resolve(name).container;
    return images.listContainerChanges({ containerId: id }, { signal });
  }),

  exportContainer: serverStream(async function* ({ name, exchangeName }, { signal }) {
    const { store } = containers.context;
    const record = store.resolve(name);
    refuseRemoved(record, 'export');
    let hasBegun = false;
    for await (const message of images.exportContainer(
      { containerId: record.container.id, exchangeName },
      { signal },
    )) {
      if (!hasBegun) await store.commit((batch) => batch.emit(containerExported(record.container)));
      hasBegun = true;
      yield message;
    }
  }),

  commitContainer: unary((request, { requestId, signal }) => containers.commit(request, requestId, signal), {
    idempotent: container.CommitContainerResponse,
  }),
});
