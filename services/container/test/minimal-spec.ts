/** A small runtime configuration for tests that are not about its details. */
export function minimalSpec(request: {
  container: {
    path: string;
    args: string[];
    config: { tty: boolean; env: string[]; workingDir: string; hostname: string };
    hostConfig: { readonlyRootfs: boolean };
  };
  user: { uid: number; gid: number; additionalGids: number[] };
  mounts: { planned: { type: string; destination: string; readOnly: boolean; options?: string[] }; source: string }[];
  etc: { hosts: string; hostname: string; resolvConf: string };
  network: { kind: string; path?: string };
}): object {
  const { container, user, mounts, etc, network } = request;
  const caps = ['CAP_CHOWN', 'CAP_DAC_OVERRIDE', 'CAP_KILL', 'CAP_SETGID', 'CAP_SETUID'];
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: container.config.tty,
      user,
      args: [container.path, ...container.args],
      env: container.config.env,
      cwd: container.config.workingDir === '' ? '/' : container.config.workingDir,
      capabilities: { bounding: caps, effective: caps, permitted: caps },
    },
    root: { path: 'rootfs', readonly: container.hostConfig.readonlyRootfs },
    hostname: container.config.hostname,
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755'] },
      { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['newinstance', 'ptmxmode=0666'] },
      { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro', 'nosuid', 'noexec', 'nodev'] },
      ...[
        ['/etc/hosts', etc.hosts],
        ['/etc/hostname', etc.hostname],
        ['/etc/resolv.conf', etc.resolvConf],
      ].map(([destination, source]) => ({ destination, source, type: 'bind', options: ['rbind', 'rprivate'] })),
      ...mounts.map(({ planned, source }) =>
        planned.type === 'tmpfs'
          ? { destination: planned.destination, source: 'tmpfs', type: 'tmpfs', options: planned.options ?? [] }
          : {
              destination: planned.destination,
              source,
              type: 'bind',
              options: ['rbind', planned.readOnly ? 'ro' : 'rw'],
            },
      ),
    ],
    linux: {
      cgroupsPath: '/flotilla-container-test',
      namespaces: [
        ...['pid', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
        ...(network.kind === 'host' ? [] : [{ type: 'network', path: network.path }]),
      ],
    },
  };
}
