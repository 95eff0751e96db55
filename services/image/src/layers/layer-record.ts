import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode } from '@flotilla/sys';

/** What lies beside the files of a layer, in `layer.json`. */
export interface LayerRecord {
  diffId: string;
  parentChainId: string | null;
  sizeBytes: string;
  /** The boot in which it was written; its files are on disk for sure only when `synced` lies beside. */
  bootId: string;
}

/** The record in a layer's directory; undefined when it is not there or is none. */
export async function readRecord(directory: string): Promise<LayerRecord | undefined> {
  let text: string;
  try {
    text = await readFile(join(directory, 'layer.json'), 'utf8');
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined; // cut short by a power failure
  }
}

function isRecord(value: unknown): value is LayerRecord {
  if (typeof value !== 'object' || value === null) return false;
  const record = value as Partial<LayerRecord>;
  return typeof record.bootId === 'string' && typeof record.sizeBytes === 'string' && /^\d+$/.test(record.sizeBytes);
}
