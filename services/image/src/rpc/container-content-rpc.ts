import { image } from '@flotilla/proto';
import { serverStream, unary } from '@flotilla/rpc';
import type { CallContext, Implementation } from '@flotilla/rpc';
import { familiarString } from '@flotilla/oci';
import { commitContainer } from '../containers/commit-container.js';
import type { CommitDeps } from '../containers/commit-container.js';
import { tagReference } from '../images/images.js';
import { sendDownload } from './streams.js';
import { runConfigOf } from '../images/run-config-message.js';

const kinds = {
  modified: image.ChangeKind.MODIFIED,
  added: image.ChangeKind.ADDED,
  deleted: image.ChangeKind.DELETED,
} as const;
/** Changes in one message; paths have at most 4 KiB. */
const batchSize = 1000;

type Handlers = Implementation<typeof image.ImageServiceService>;

/** What a container has written: as a list, as a tar, as an image. */
export const containerContentRpc = (deps: CommitDeps, exchangeDir: string): Handlers => ({
  listContainerChanges: serverStream(async function* (
    { containerId }: image.ListContainerChangesRequest,
    { signal }: CallContext,
  ) {
    const changes = await deps.readers.read(containerId, signal, (reading) =>
      deps.layers.writable.changes(reading.tree, reading.signal),
    );
    for (let at = 0; at < changes.length; at += batchSize) {
      const batch = changes.slice(at, at + batchSize);
      yield {
        changes: batch.map(({ path, kind }) => ({
          path: Buffer.from(path, 'latin1').toString('utf8'),
          kind: kinds[kind],
        })),
      };
    }
  }),

  exportContainer: serverStream(
    ({ containerId, exchangeName }: image.ExportContainerRequest, { signal }: CallContext) => {
      const data = deps.readers.stream(containerId, signal, (reading) =>
        deps.layers.writable.pack(reading.tree, reading.signal),
      );
      return sendDownload(data, exchangeDir, exchangeName, signal);
    },
  ),

  commitContainer: unary(
    async (request: image.CommitContainerRequest, { requestId, signal }) => {
      const reference = request.repository === '' ? undefined : tagReference(request.repository, request.tag);
      const shown = reference === undefined ? '' : familiarString(reference);
      const options = {
        containerId: request.containerId,
        reference,
        comment: request.comment,
        author: request.author,
        changes: request.changes,
        config: request.config === undefined ? undefined : runConfigOf(request.config),
        containerConfig: runConfigOf(request.containerConfig ?? image.ImageConfig.fromPartial({})),
      };
      const { id, revision } = await commitContainer(deps, options, signal, (imageId) => ({
        requestId,
        encode: (at) => image.CommitContainerResponse.encode({ imageId, revision: at, reference: shown }).finish(),
      }));
      return { imageId: id, revision, reference: shown };
    },
    { idempotent: image.CommitContainerResponse },
  ),
});
