import type { Healthcheck, RunConfig } from '@flotilla/oci';
import type { common, image } from '@flotilla/proto';

/** The configuration of an image as the contract has it. */
export function runConfigMessage(run: RunConfig): image.ImageConfig {
  return {
    user: run.user,
    exposedPorts: [...run.exposedPorts],
    env: [...run.env],
    entrypoint: [...(run.entrypoint ?? [])],
    cmd: [...(run.cmd ?? [])],
    volumes: [...run.volumes],
    workingDir: run.workingDir,
    labels: Object.fromEntries(run.labels),
    stopSignal: run.stopSignal,
    shell: [...run.shell],
    healthcheck: run.healthcheck === undefined ? undefined : healthcheckMessage(run.healthcheck),
    onBuild: [...run.onBuild],
    argsEscaped: run.argsEscaped,
    hasEntrypoint: run.entrypoint !== undefined,
    hasCmd: run.cmd !== undefined,
  };
}

function healthcheckMessage(health: Healthcheck): common.Healthcheck {
  return {
    test: [...health.test],
    intervalNs: BigInt(health.interval),
    timeoutNs: BigInt(health.timeout),
    retries: BigInt(health.retries),
    startPeriodNs: BigInt(health.startPeriod),
    startIntervalNs: BigInt(health.startInterval),
  };
}

/** The configuration of a request; undoes `runConfigMessage`. */
export function runConfigOf(message: image.ImageConfig): RunConfig {
  return {
    user: message.user,
    exposedPorts: message.exposedPorts,
    env: message.env,
    entrypoint: message.hasEntrypoint || message.entrypoint.length > 0 ? message.entrypoint : undefined,
    cmd: message.hasCmd || message.cmd.length > 0 ? message.cmd : undefined,
    volumes: message.volumes,
    workingDir: message.workingDir,
    labels: new Map(Object.entries(message.labels)),
    stopSignal: message.stopSignal,
    shell: message.shell,
    healthcheck: message.healthcheck === undefined ? undefined : healthcheckOf(message.healthcheck),
    onBuild: message.onBuild,
    argsEscaped: message.argsEscaped,
  };
}

function healthcheckOf(message: common.Healthcheck): Healthcheck {
  return {
    test: message.test,
    interval: Number(message.intervalNs),
    timeout: Number(message.timeoutNs),
    retries: Number(message.retries),
    startPeriod: Number(message.startPeriodNs),
    startInterval: Number(message.startIntervalNs),
  };
}
