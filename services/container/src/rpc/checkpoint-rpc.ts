import { container } from '@flotilla/proto';
import { type Implementation, unary } from '@flotilla/rpc';
import type { Containers } from '../containers/containers.js';

type Handlers = Implementation<typeof container.ContainerServiceService>;

/** Containers written down. */
export const checkpointRpc = ({ checkpoints }: Containers): Handlers => ({
  createCheckpoint: unary(async ({ name, checkpoint, directory, exit }) => {
    await checkpoints.create(name, checkpoint, directory, exit);
    return {};
  }),

  listCheckpoints: unary(async ({ name, directory }) => ({ checkpoints: await checkpoints.list(name, directory) })),

  deleteCheckpoint: unary(async ({ name, checkpoint, directory }) => {
    await checkpoints.delete(name, checkpoint, directory);
    return {};
  }),
});
