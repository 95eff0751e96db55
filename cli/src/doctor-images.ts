import { dataLoss, isEngineError, notFound } from '@flotilla/errors';
import { silentLogger } from '@flotilla/log';
import { image, registry } from '@flotilla/proto';
import { connect } from '@flotilla/rpc';
import { readState, statePath } from './engine-state.js';
import { isAlive } from './process-identity.js';

export interface ExamineOptions {
  readonly repair: boolean;
  readonly idle: boolean;
  readonly json: boolean;
}

const { StoreFindingKind } = image;
const names: Readonly<Record<number, string>> = {
  [StoreFindingKind.BLOB_MISSING]: 'blob missing',
  [StoreFindingKind.BLOB_CORRUPT]: 'blob corrupt',
  [StoreFindingKind.BLOB_ORPHAN]: 'blob orphan',
  [StoreFindingKind.LAYER_MISSING]: 'layer missing',
  [StoreFindingKind.LAYER_RECORD]: 'layer record',
  [StoreFindingKind.LAYER_ORPHAN]: 'layer orphan',
  [StoreFindingKind.CONTAINER_LAYER_MISSING]: 'container layer missing',
  [StoreFindingKind.CONTAINER_LAYER_ORPHAN]: 'container layer orphan',
  [StoreFindingKind.REFERENCE_DANGLING]: 'reference dangling',
  [StoreFindingKind.IMAGE_RECORD]: 'image record',
  [StoreFindingKind.TEMPORARY]: 'temporary',
};

/**
 * Have the image service of the engine that runs with this exec root check its store; findings are printed as they come.
 *
 * @returns 0 when the store is whole at the end, 1 when something is left to do
 * @throws EngineError `notFound` when no engine runs: an engine checks records against the disk at its start as well
 */
export async function examineImages(
  execRoot: string,
  { repair, idle, json }: ExamineOptions,
  print: (line: string) => void,
): Promise<number> {
  const state = readState(statePath(execRoot));
  if (state === undefined || !isAlive(state.launcher)) {
    throw notFound(`no engine runs with exec root ${execRoot}; the image store is checked through a running engine`);
  }
  const address = state.processes.find(({ service }) => service === 'image')?.address;
  if (address === undefined) throw notFound(`the engine with exec root ${execRoot} has no image service`);
  const client = connect(image.ImageServiceService, address, { log: silentLogger() });
  try {
    let left = 0;
    let summary: image.StoreSummary | undefined;
    const findings: object[] = [];
    for await (const { event } of client.checkStore({ repair, idle })) {
      if (event?.$case === 'summary') summary = event.value;
      if (event?.$case !== 'finding') continue;
      const { kind, subject, message, imageIds, repaired } = event.value;
      if (!repaired) left += 1;
      const name = names[kind] ?? 'unknown';
      if (json) findings.push({ kind: name, subject, message, imageIds, repaired });
      else print(`${repaired ? 'repaired ' : 'FAULT    '}${name} ${subject}: ${message}`);
    }
    if (summary === undefined) throw dataLoss('the image service ended the check early');
    const partial = await partialDownloads(
      state.processes.find(({ service }) => service === 'registry-proxy')?.address,
    );
    if (json) print(JSON.stringify({ findings, ...numbersOf(summary), ...partial }, undefined, 2));
    else {
      if (partial.partialDownloads > 0) {
        const size = (partial.partialBytes / 1e6).toFixed(1);
        print(`${partial.partialDownloads} interrupted downloads (${size} MB) wait for the next pull`);
      }
      print(sentenceOf(summary, left));
    }
    return left === 0 ? 0 : 1;
  } finally {
    client.close();
  }
}

/** No fault: the next pull of the image goes on with them. None are known while registry-proxy is down. */
async function partialDownloads(
  address: string | undefined,
): Promise<{ readonly partialDownloads: number; readonly partialBytes: number }> {
  if (address === undefined) return { partialDownloads: 0, partialBytes: 0 };
  const client = connect(registry.RegistryServiceService, address, { log: silentLogger() });
  try {
    const usage = await client.getCacheUsage({}, { deadlineMs: 10_000, retryUnavailableMs: 0 });
    return { partialDownloads: Number(usage.partialBlobs), partialBytes: Number(usage.partialBytes) };
  } catch (error) {
    if (isEngineError(error, 'unavailable')) return { partialDownloads: 0, partialBytes: 0 };
    throw error;
  } finally {
    client.close();
  }
}

function numbersOf(summary: image.StoreSummary): Record<string, number> {
  return Object.fromEntries(Object.entries(summary).map(([key, value]) => [key, Number(value)]));
}

function sentenceOf(summary: image.StoreSummary, left: number): string {
  const { images, references, blobs, blobBytes, layers, containerLayers, quarantined } = summary;
  const aside = quarantined === 0n ? '' : `, ${quarantined} corrupt blobs put aside`;
  const outcome = left === 0 ? 'the store is whole' : `${left} ${left === 1 ? 'fault' : 'faults'}`;
  return `${images} images, ${references} names, ${blobs} blobs (${(Number(blobBytes) / 1e6).toFixed(1)} MB), ${layers} layers, ${containerLayers} containers${aside}: ${outcome}`;
}
