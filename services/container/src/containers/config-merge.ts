import { invalidArgument } from '@flotilla/errors';
import type { common, container, image } from '@flotilla/proto';
import { expandExposedPort } from './port-plan.js';

/** The stop signal of containers and images that name none. */
export const defaultStopSignal = 'SIGTERM';

/**
 * A container's configuration merged with its image's, by dockerd's rules: the user's word wins, environment and labels are joined by key,
 * ports and volumes are united, and an entrypoint of the user's drops the image's command.
 *
 * @throws EngineError `invalidArgument` `no command specified`.
 */
export function mergeConfig(
  user: container.ContainerConfig,
  from: image.ImageConfig | undefined,
): container.ContainerConfig {
  const merged: container.ContainerConfig = {
    ...user,
    exposedPorts: [...new Set([...user.exposedPorts, ...(from?.exposedPorts ?? [])].flatMap(expandExposedPort))].sort(
      byPort,
    ),
    volumes: [...new Set([...user.volumes, ...(from?.volumes ?? [])])].sort(),
    env: mergeEnv(user.env, from?.env ?? []),
    labels: { ...from?.labels, ...user.labels },
    user: user.user === '' ? (from?.user ?? '') : user.user,
    workingDir: user.workingDir === '' ? (from?.workingDir ?? '') : user.workingDir,
    stopSignal: user.stopSignal === '' ? (from?.stopSignal ?? '') : user.stopSignal,
    shell: user.shell.length === 0 ? (from?.shell ?? []) : user.shell,
    healthcheck: mergeHealthcheck(user.healthcheck, from?.healthcheck),
    onBuild: user.onBuild,
    ...mergeCommand(user, from),
  };
  if (merged.entrypoint.length === 0 && merged.cmd.length === 0) throw invalidArgument('no command specified');
  return merged;
}

type Command = Pick<container.ContainerConfig, 'entrypoint' | 'cmd' | 'argsEscaped' | 'hasEntrypoint' | 'hasCmd'>;

function mergeCommand(user: container.ContainerConfig, from: image.ImageConfig | undefined): Command {
  let { cmd, argsEscaped, entrypoint, hasCmd } = user;
  let hasEntrypoint = user.hasEntrypoint || entrypoint.length > 0;
  const isReset = entrypoint.length === 1 && entrypoint[0] === '';
  if (entrypoint.length === 0) {
    if (cmd.length === 0 && from !== undefined) {
      ({ cmd, argsEscaped } = from);
      hasCmd = from.hasCmd || cmd.length > 0;
    }
    if (!hasEntrypoint && from !== undefined) {
      ({ entrypoint } = from);
      hasEntrypoint = from.hasEntrypoint || entrypoint.length > 0;
    }
  }
  if (isReset) {
    entrypoint = [];
    hasEntrypoint = false;
  }
  return { cmd, argsEscaped, entrypoint, hasEntrypoint, hasCmd: hasCmd || cmd.length > 0 };
}

/** Program and arguments that a configuration runs. */
export function commandLine(config: Pick<container.ContainerConfig, 'entrypoint' | 'cmd'>): {
  path: string;
  args: string[];
} {
  const [path = '', ...args] = [...config.entrypoint, ...config.cmd];
  return { path, args };
}

function mergeEnv(user: readonly string[], from: readonly string[]): string[] {
  const named = new Set(user.map(nameOf));
  return [...user, ...from.filter((entry) => !named.has(nameOf(entry)))];
}

function nameOf(entry: string): string {
  const equals = entry.indexOf('=');
  return equals === -1 ? entry : entry.slice(0, equals);
}

function mergeHealthcheck(
  user: common.Healthcheck | undefined,
  from: common.Healthcheck | undefined,
): common.Healthcheck | undefined {
  if (user === undefined || from === undefined) return user ?? from;
  const pick = (mine: bigint, theirs: bigint): bigint => (mine === 0n ? theirs : mine);
  return {
    test: user.test.length === 0 ? from.test : user.test,
    intervalNs: pick(user.intervalNs, from.intervalNs),
    timeoutNs: pick(user.timeoutNs, from.timeoutNs),
    retries: pick(user.retries, from.retries),
    startPeriodNs: pick(user.startPeriodNs, from.startPeriodNs),
    startIntervalNs: pick(user.startIntervalNs, from.startIntervalNs),
  };
}

function byPort(a: string, b: string): number {
  return Number.parseInt(a, 10) - Number.parseInt(b, 10) || (a < b ? -1 : 1);
}
