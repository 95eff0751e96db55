import type { Healthcheck, RunConfig } from '@flotilla/oci';
import type { common, image } from '@flotilla/proto';

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
