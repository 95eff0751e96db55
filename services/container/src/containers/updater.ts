import { conflict, invalidArgument } from '@flotilla/errors';
import { container } from '@flotilla/proto';
import { encodeSpec, readHostFacts, specResources } from '../spec/index.js';
import { type ContainerRecord, stateOf } from '../store/container-record.js';
import { limitsOf } from './container-spec.js';
import type { ContainerContext } from './context.js';
import { containerUpdated } from './events.js';
import { parseRestartPolicy } from './restart-policy.js';
import { validateResources } from './validate-resources.js';

export interface UpdateRequest {
  readonly resources: container.Resources | undefined;
  readonly restartPolicy: container.RestartPolicy | undefined;
  readonly requestId: string;
}

/**
 * Change limits and restart policy of a container, at once in one that runs. Called under its lock.
 *
 * @throws EngineError `invalidArgument` for impossible limits; `conflict` with what it has, or when the kernel refuses.
 */
export async function updateContainer(
  context: ContainerContext,
  record: ContainerRecord,
  request: UpdateRequest,
): Promise<container.UpdateContainerResponse> {
  const { id, hostConfig } = record.container;
  const state = stateOf(record);
  if (state === 'removing' || record.internals.removal !== null) {
    throw conflict(`Cannot update container ${id}: container is marked for removal and cannot be "update"`);
  }
  const wanted = request.resources ?? container.Resources.fromPartial({});
  const current = hostConfig.resources ?? container.Resources.fromPartial({});
  const resources = mergeResources(current, wanted);
  const warnings = validateResources(resources, context.settings.machine);
  const policy = request.restartPolicy;
  const hasPolicy = policy !== undefined && policy.name !== '';
  if (hasPolicy) {
    parseRestartPolicy(policy.name, policy.maximumRetryCount);
    if (hostConfig.autoRemove) {
      throw invalidArgument('Restart policy cannot be updated because AutoRemove is enabled for the container');
    }
  }
  if ((state === 'running' || state === 'paused') && !isSame(current, resources)) {
    const limits = specResources(limitsOf(resources), readHostFacts().cgroup);
    await context.tasks.get(id)?.update(encodeSpec(limits));
  }
  const shown = {
    ...record.container,
    hostConfig: { ...hostConfig, resources, restartPolicy: hasPolicy ? policy : hostConfig.restartPolicy },
  };
  const revision = await context.store.commit((batch) => {
    batch.put({ container: shown, internals: record.internals });
    batch.emit(containerUpdated(shown));
    const response = { warnings, revision: batch.revision };
    batch.reply(request.requestId, container.UpdateContainerResponse.encode(response).finish());
  });
  return { warnings, revision };
}

/**
 * What an update leaves out stays: moby/moby container/container_unix.go, UpdateContainer.
 *
 * @throws EngineError `conflict` in dockerd's words.
 */
function mergeResources(current: container.Resources, wanted: container.Resources): container.Resources {
  if (wanted.nanoCpus > 0n && (current.cpuPeriod > 0n || current.cpuQuota > 0n)) {
    const which = current.cpuPeriod > 0n ? 'Period' : 'Quota';
    throw conflict(`Conflicting options: Nano CPUs cannot be updated as CPU ${which} has already been set`);
  }
  if (current.nanoCpus > 0n && (wanted.cpuPeriod > 0n || wanted.cpuQuota > 0n)) {
    const which = wanted.cpuPeriod > 0n ? 'Period' : 'Quota';
    throw conflict(`Conflicting options: CPU ${which} cannot be updated as NanoCPUs has already been set`);
  }
  if (wanted.memoryBytes > 0n && wanted.memorySwapBytes === 0n && current.memorySwapBytes > 0n) {
    if (wanted.memoryBytes > current.memorySwapBytes) {
      throw conflict(
        'Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time',
      );
    }
  }
  const bigint = (mine: bigint, theirs: bigint): bigint => (theirs === 0n ? mine : theirs);
  const text = (mine: string, theirs: string): string => (theirs === '' ? mine : theirs);
  const { pidsLimit } = wanted;
  return {
    ...current,
    blkioWeight: wanted.blkioWeight === 0 ? current.blkioWeight : wanted.blkioWeight,
    cpuShares: bigint(current.cpuShares, wanted.cpuShares),
    nanoCpus: bigint(current.nanoCpus, wanted.nanoCpus),
    cpuPeriod: bigint(current.cpuPeriod, wanted.cpuPeriod),
    cpuQuota: bigint(current.cpuQuota, wanted.cpuQuota),
    cpuRealtimePeriod: bigint(current.cpuRealtimePeriod, wanted.cpuRealtimePeriod),
    cpuRealtimeRuntime: bigint(current.cpuRealtimeRuntime, wanted.cpuRealtimeRuntime),
    cpusetCpus: text(current.cpusetCpus, wanted.cpusetCpus),
    cpusetMems: text(current.cpusetMems, wanted.cpusetMems),
    memoryBytes: bigint(current.memoryBytes, wanted.memoryBytes),
    memorySwapBytes: bigint(current.memorySwapBytes, wanted.memorySwapBytes),
    memoryReservationBytes: bigint(current.memoryReservationBytes, wanted.memoryReservationBytes),
    ...(pidsLimit === undefined ? {} : { pidsLimit }),
  };
}

function isSame(a: container.Resources, b: container.Resources): boolean {
  const bytesOf = (it: container.Resources): Uint8Array => container.Resources.encode(it).finish();
  return Buffer.compare(bytesOf(a), bytesOf(b)) === 0;
}
