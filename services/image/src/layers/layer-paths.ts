import { join } from 'node:path';
import { digestHex, parseDigest, sha256Of } from '@flotilla/oci';

const containerId = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;

/** Where things lie below the image service's directory. */
export class LayerPaths {
  readonly layers: string;
  readonly containers: string;
  /** The one lower directory of an image without layers. */
  readonly empty: string;

  constructor(root: string) {
    this.layers = join(root, 'layers');
    this.containers = join(root, 'containers');
    this.empty = join(root, 'empty-layer');
  }

  layer(chainId: string): string {
    return join(this.layers, digestHex(parseDigest(chainId)));
  }

  diff(chainId: string): string {
    return join(this.layer(chainId), 'diff');
  }

  container(id: string): string {
    if (!containerId.test(id)) throw new Error(`not a container id: ${JSON.stringify(id)}`);
    return join(this.containers, id);
  }
}

/** Names a stack of layers: the DiffID for the lowest, then the hash of what is below and the DiffID. */
export function chainIdOf(parentChainId: string | undefined, diffId: string): string {
  const diff = parseDigest(diffId);
  return parentChainId === undefined ? diff : sha256Of(`${parseDigest(parentChainId)} ${diff}`);
}
