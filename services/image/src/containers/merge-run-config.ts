import type { Healthcheck, RunConfig } from '@flotilla/oci';

/**
 * The configuration of a committed image: what the user gives wins, the container's fills in (moby daemon/commit.go,
 * merge): lists of ports, volumes, labels and environment are joined, and a new entrypoint drops the old command.
 */
export function mergeRunConfig(user: RunConfig, own: RunConfig): RunConfig {
  const named = new Set(user.env.map(nameOf));
  const takesCommand = (user.entrypoint ?? []).length === 0 && (user.cmd ?? []).length === 0;
  return {
    user: user.user === '' ? own.user : user.user,
    exposedPorts: [...new Set([...user.exposedPorts, ...own.exposedPorts])],
    env: [...user.env, ...own.env.filter((entry) => !named.has(nameOf(entry)))],
    entrypoint: user.entrypoint ?? own.entrypoint,
    cmd: takesCommand ? own.cmd : user.cmd,
    argsEscaped: takesCommand ? own.argsEscaped : user.argsEscaped,
    volumes: [...new Set([...user.volumes, ...own.volumes])],
    workingDir: user.workingDir === '' ? own.workingDir : user.workingDir,
    labels: new Map([...own.labels, ...user.labels]),
    stopSignal: user.stopSignal === '' ? own.stopSignal : user.stopSignal,
    shell: user.shell.length === 0 ? own.shell : user.shell,
    healthcheck: mergeHealthcheck(user.healthcheck, own.healthcheck),
    onBuild: user.onBuild,
  };
}

const nameOf = (entry: string): string => entry.split('=', 1)[0] ?? '';

function mergeHealthcheck(user: Healthcheck | undefined, own: Healthcheck | undefined): Healthcheck | undefined {
  if (user === undefined || own === undefined) return user ?? own;
  return {
    test: user.test.length === 0 ? own.test : user.test,
    interval: user.interval || own.interval,
    timeout: user.timeout || own.timeout,
    retries: user.retries || own.retries,
    startPeriod: user.startPeriod || own.startPeriod,
    startInterval: user.startInterval || own.startInterval,
  };
}
