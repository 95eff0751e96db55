import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';

const BUSYBOX = '/bin/busybox';
const SHIM = '/usr/bin/containerd-shim-runc-v2';
const APPLETS =
  'sh cat echo sleep true false dd seq id ls kill stty tty yes head tail env printf md5sum wc mkdir test awk'.split(
    ' ',
  );

/** Why tests that run containers cannot run here, or undefined when they can. */
export function missingForContainers(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = [SHIM, BUSYBOX, '/usr/sbin/runc'].find((path) => !existsSync(path));
  return missing === undefined ? undefined : `needs ${missing}`;
}

/** A directory in memory for one test file. The caller removes it. */
export function makeTestRoot(): string {
  return mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-runtime-'));
}

export interface TestBundle {
  readonly id: string;
  readonly bundle: string;
  readonly logPath: string;
}

/** A bundle with a busybox root file system and no network. `change` may edit the OCI configuration. */
export function makeBundle(
  root: string,
  args: readonly string[],
  options: { terminal?: boolean; change?: (spec: TestSpec) => void } = {},
): TestBundle {
  const id = randomBytes(32).toString('hex');
  const bundle = join(root, 'containers', id);
  const logs = join(root, 'logs', id);
  mkdirSync(join(bundle, 'rootfs/bin'), { recursive: true });
  mkdirSync(logs, { recursive: true });
  for (const directory of ['proc', 'dev', 'tmp', 'etc']) mkdirSync(join(bundle, 'rootfs', directory));
  copyFileSync(BUSYBOX, join(bundle, 'rootfs/bin/busybox'));
  for (const applet of APPLETS) symlinkSync('busybox', join(bundle, 'rootfs/bin', applet));
  writeFileSync(join(bundle, 'rootfs/etc/passwd'), 'root:x:0:0::/:/bin/sh\n');
  const spec = testSpec(id, args, options.terminal ?? false);
  options.change?.(spec);
  writeFileSync(join(bundle, 'config.json'), JSON.stringify(spec));
  return { id, bundle, logPath: join(logs, `${id}-json.log`) };
}

export function removeTestRoot(root: string): void {
  rmSync(root, { recursive: true, force: true });
}

const CAPABILITIES = ['CAP_KILL', 'CAP_CHOWN', 'CAP_SETUID', 'CAP_SETGID'];

function testSpec(id: string, args: readonly string[], terminal: boolean) {
  return {
    ociVersion: '1.0.2',
    process: {
      terminal,
      user: { uid: 0, gid: 0 },
      args: [...args],
      env: ['PATH=/bin', 'TERM=xterm'],
      cwd: '/',
      capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
    },
    root: { path: 'rootfs' },
    hostname: 'test',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'mode=755', 'size=65536k'] },
      {
        destination: '/dev/pts',
        type: 'devpts',
        source: 'devpts',
        options: ['newinstance', 'ptmxmode=0666', 'mode=0620'],
      },
    ] as { destination: string; type: string; source: string; options?: string[] }[],
    linux: {
      cgroupsPath: `/flotilla-test/${id}`,
      resources: {} as { memory?: { limit: number; swap?: number } },
      namespaces: ['pid', 'network', 'ipc', 'uts', 'mount'].map((type) => ({ type })),
    },
  };
}

export type TestSpec = ReturnType<typeof testSpec>;
