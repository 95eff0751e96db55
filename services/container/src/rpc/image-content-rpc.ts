import { image, type container } from '@flotilla/proto';
import { type Implementation, serverStream, type TypedClient, unary } from '@flotilla/rpc';
import type { Containers } from '../containers/containers.js';
import { isLive } from '../containers/state.js';
import { stateOf } from '../store/container-record.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

const deadlineMs = 10 * 60_000;

/** What the image service does with a container's layer: the name is resolved and the state checked here. */
export const imageContentRpc = (
  containers: Containers,
  images: TypedClient<typeof image.ImageServiceService>,
): Handlers => ({
  listChanges: unary(async ({ name }, { signal }) => {
    const { id } = containers.context.store.resolve(name).container;
    return images.listContainerChanges({ containerId: id }, { deadlineMs, signal });
  }),

  exportContainer: serverStream(({ name }, { signal }) => {
    const { id } = containers.context.store.resolve(name).container;
    return images.exportContainer({ containerId: id }, { signal });
  }),

  commitContainer: unary(async (request, { requestId, signal }) => {
    const record = containers.context.store.resolve(request.name);
    const { id, config: own } = record.container;
    const pauses = request.pause && stateOf(record) === 'running';
    if (pauses) await containers.pause(id, '');
    try {
      const committed = await images.commitContainer(
        {
          containerId: id,
          repository: request.repository,
          tag: request.tag,
          comment: request.comment,
          author: request.author,
          changes: request.changes,
          config: imageConfigOf(request.config ?? own),
        },
        { deadlineMs, signal, requestId },
      );
      return { imageId: committed.imageId, imageRevision: committed.revision };
    } finally {
      const now = containers.context.store.get(id);
      if (pauses && now !== undefined && isLive(stateOf(now))) await containers.unpause(id, '');
    }
  }),
});

function imageConfigOf(config: container.ContainerConfig): image.ImageConfig {
  const {
    user,
    exposedPorts,
    env,
    entrypoint,
    cmd,
    volumes,
    workingDir,
    labels,
    stopSignal,
    shell,
    onBuild,
    argsEscaped,
  } = config;
  const { hasEntrypoint, hasCmd, healthcheck } = config;
  return image.ImageConfig.fromPartial({
    ...{
      user,
      exposedPorts,
      env,
      entrypoint,
      cmd,
      volumes,
      workingDir,
      labels,
      stopSignal,
      shell,
      onBuild,
      argsEscaped,
    },
    ...{ hasEntrypoint, hasCmd, healthcheck },
  });
}
