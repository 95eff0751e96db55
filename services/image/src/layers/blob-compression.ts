import { open } from 'node:fs/promises';
import { compressionOf } from '@flotilla/layer-tar';
import type { LayerCompression } from './codec-process.js';

export async function compressionOfFile(path: string): Promise<LayerCompression> {
  const file = await open(path, 'r');
  try {
    const head = Buffer.alloc(4);
    const { bytesRead } = await file.read(head, 0, 4, 0);
    return compressionOf(head.subarray(0, bytesRead));
  } finally {
    await file.close();
  }
}
