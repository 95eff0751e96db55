import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerConfig } from '@flotilla/config';
import { type ContainerSettings, readMachine } from './containers/settings.js';

/** What the lifecycle needs, from the service's file. */
export function settingsOf({ container, dataDir, execRoot, engineId }: ContainerConfig): ContainerSettings {
  const machine = readMachine();
  return {
    dataDir,
    bundlesDir: join(execRoot, 'containers'),
    runtimes: new Map(Object.entries(container.runtimes).map(([name, runtime]) => [name, runtime.path])),
    defaultRuntime: container.defaultRuntime,
    shimCgroup: `/flotilla-shims-${engineId.slice(0, 8)}`,
    systemdCgroup: false,
    cgroupParent: container.cgroupParent,
    defaultCgroupnsMode: existsSync('/sys/fs/cgroup/cgroup.controllers') ? 'private' : 'host',
    defaultLogDriver: container.logDriver,
    defaultLogOptions: container.logOpts,
    defaultStopTimeoutSeconds: container.defaultStopTimeoutSeconds,
    defaultShmSizeBytes: BigInt(container.defaultShmSizeBytes),
    defaultIpcMode: container.defaultIpcMode,
    init: container.init,
    initPath: container.initPath,
    userNamespace: container.userNamespace,
    concurrentStarts: Math.max(4, machine.cpus * 2),
    machine,
  };
}
