import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { allHostDevices, encodeSpec, generateSpec, mappedDevices, readHostFacts } from './index.js';
import type { SpecInput } from './index.js';
import { plainInput } from './spec-fixtures.js';
import { noLimits } from './spec-input.js';

// Needs root, runc, busybox-static and the distribution's seccomp list.
const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path));
const missing = [
  ...(process.getuid?.() === 0 ? [] : ['root']),
  ...(spawnSync('runc', ['--version']).status === 0 ? [] : ['runc']),
  ...(busybox === undefined ? ['busybox-static'] : []),
  ...(existsSync('/usr/share/containers/seccomp.json') ? [] : ['golang-github-containers-common']),
];
const base = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'flotilla-runc-'));
afterAll(() => rmSync(base, { recursive: true, force: true }));

/** Runs `script` with sh in a container of its own. */
function run(script: string, change: Partial<SpecInput> = {}, processChange: Partial<SpecInput['process']> = {}) {
  const id = `flotilla-spec-${randomBytes(6).toString('hex')}`;
  const bundle = join(base, id);
  const bin = join(bundle, 'rootfs/bin');
  mkdirSync(bin, { recursive: true });
  for (const name of ['tmp', 'etc', 'sbin', 'mnt', 'proc', 'sys', 'dev']) mkdirSync(join(bundle, 'rootfs', name));
  copyFileSync(busybox ?? '', join(bin, 'busybox'));
  chmodSync(join(bin, 'busybox'), 0o755);
  for (const name of [
    'sh',
    'cat',
    'grep',
    'id',
    'ls',
    'mount',
    'unshare',
    'hostname',
    'ulimit',
    'touch',
    'stat',
    'env',
    'test',
    'ping',
    'mkdir',
    'dd',
    'chown',
    'od',
    'date',
    'head',
  ]) {
    symlinkSync('busybox', join(bin, name));
  }
  const plain = plainInput();
  const input = plainInput({
    seccompProfile: 'builtin',
    cgroupsPath: `/${id}`,
    ...change,
    process: { ...plain.process, args: ['/bin/sh', '-c', script], ...processChange },
  });
  writeFileSync(join(bundle, 'config.json'), encodeSpec(generateSpec(input, readHostFacts())));
  const root = join(base, `${id}-state`);
  const { stdout, stderr, status } = spawnSync('runc', ['--root', root, 'run', '--bundle', bundle, id], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 20_000,
  });
  spawnSync('runc', ['--root', root, 'delete', '--force', id]);
  return { stdout, stderr, status };
}

describe.skipIf(missing.length > 0)(
  `a container by runc${missing.length > 0 ? ` (missing: ${missing.join(', ')})` : ''}`,
  () => {
    it('has Docker’s capabilities, seccomp and masks', () => {
      const { stdout, stderr, status } = run(
        'grep -E "Cap|Seccomp:|NoNewPrivs" /proc/self/status; cat /proc/kcore 2>/dev/null | head -c 1 | od; ls /proc/acpi; echo x > /proc/sysrq-trigger; touch /sys/x; hostname; ls /dev',
      );
      expect([status, stderr]).toEqual([0, expect.stringMatching(/Read-only/)]);
      for (const set of ['CapPrm', 'CapEff', 'CapBnd'])
        expect(stdout).toMatch(new RegExp(`${set}:\\s*00000000a80425fb`));
      expect(stdout).toMatch(/CapInh:\s*0000000000000000/);
      expect(stdout).toMatch(/Seccomp:\s*2/);
      expect(stdout).toMatch(/NoNewPrivs:\s*0/);
      expect(stdout).toMatch(/^c0ffee$/m);
      expect(stdout).toMatch(/^null$/m);
    });

    it('refuses namespaces, mounts and keys, with EPERM', () => {
      const { stdout } = run(
        'unshare -U true 2>&1; echo "=$?"; unshare -m true 2>&1; echo "=$?"; mount -t tmpfs none /mnt 2>&1; echo "=$?"; cat /proc/keys; date -s 2020-01-01 2>&1',
      );
      expect(stdout).toMatch(
        /unshare\(0x[0-9a-f]+\): Operation not permitted\n=1\nunshare: .*Operation not permitted\n=1/,
      );
      expect(stdout).toMatch(/mount.*(permission denied|Operation not permitted).*\n=\d+/i);
      expect(stdout).toMatch(/can't set date: Operation not permitted/);
    });

    it('may do so when it has the capability, but never touch keys', () => {
      const { stdout } = run('mount -t tmpfs none /mnt && unshare -m true && unshare -U true && echo fine', {
        capAdd: ['SYS_ADMIN'],
      });
      expect(stdout).toBe('fine\n');
      const probe = compileKeyctl();
      if (probe === undefined) return;
      const bind = {
        type: 'bind',
        source: probe,
        destination: '/bin/keyctl-probe',
        readOnly: true,
        recursive: false,
        propagation: '',
      } as const;
      for (const capAdd of [[], ['SYS_ADMIN']]) {
        expect(run('keyctl-probe; echo $?', { mounts: [bind], capAdd }, { env: ['PATH=/bin'] }).stdout).toBe('1\n');
      }
    });

    it('applies limits, mounts, init, user and devices', () => {
      const directory = join(base, 'bound');
      mkdirSync(directory);
      writeFileSync(join(directory, 'hello'), 'hello');
      const zero = mappedDevices({ pathOnHost: '/dev/zero', pathInContainer: '/dev/mine', permissions: 'r' });
      const { stdout, stderr, status } = run(
        'id; ulimit -n; cat /m/hello; touch /m/x; touch /t/y && echo tmp; mount | grep " /t "; head -c 2 /dev/mine | od; cat /proc/1/cmdline; touch /nope; cat /proc/sys/kernel/domainname; cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max',
        {
          readonlyRootfs: true,
          mounts: [
            {
              type: 'bind',
              source: directory,
              destination: '/m',
              readOnly: true,
              recursive: true,
              propagation: 'rprivate',
            },
            { type: 'tmpfs', destination: '/t', options: ['size=1m'] },
            { type: 'tmpfs', destination: '/sbin', options: [] },
          ],
          ...(existsSync('/usr/bin/tini-static') ? { initPath: '/usr/bin/tini-static' } : {}),
          devices: zero.devices,
          deviceRules: zero.rules,
          domainname: 'nis.example',
          resources: { ...noLimits, memoryBytes: 64n << 20n, pidsLimit: 33n, nanoCpus: 500_000_000n, cpuShares: 100n },
        },
        {
          uid: 1234,
          gid: 5678,
          additionalGids: [5678, 99],
          rlimits: [{ name: 'nofile', soft: 77n, hard: 88n }],
          noNewPrivileges: true,
          oomScoreAdj: 5,
        },
      );
      expect([status, stderr]).toEqual([1, expect.stringMatching(/\/m\/x: Read-only[\s\S]*\/nope: Read-only/)]);
      expect(stdout).toMatch(/^uid=1234 gid=5678 groups=99,5678\n77\nhello/);
      expect(stdout).toContain('tmpfs on /t type tmpfs (rw,nosuid,nodev,noexec');
      expect(stdout).toContain('size=1024k');
      expect(stdout).toContain('0000000 000000');
      expect(stdout).toContain('nis.example\n33\n');
      if (existsSync('/usr/bin/tini-static')) expect(stdout).toContain('/sbin/docker-init\0--\0/bin/sh');
    });

    it('gives a privileged one everything that the engine has', () => {
      const { stdout, status } = run(
        'grep -E "CapEff|Seccomp:" /proc/self/status; mount -t tmpfs none /mnt && touch /sys/fs/cgroup/x; test -w /proc/sys/kernel/hostname && echo writable',
        { privileged: true, devices: allHostDevices() },
      );
      expect(status).toBe(0);
      const bounding = readHostFacts().capabilities.length;
      const mask = BigInt(`0x${/CapEff:\s*([0-9a-f]+)/.exec(stdout)?.[1] ?? '0'}`).toString(2);
      expect(mask.replaceAll('0', '')).toHaveLength(bounding);
      expect(stdout).toMatch(/Seccomp:\s*0/);
      expect(stdout).toContain('writable');
    });

    it('shares namespaces of the host and of a path', () => {
      const { stdout } = run('stat -L -c %i /proc/self/ns/uts /proc/self/ns/net', {
        uts: { kind: 'host' },
        network: { kind: 'path', path: '/proc/self/ns/net' },
        ownsNetwork: false,
      });
      const own = spawnSync('stat', ['-L', '-c', '%i', '/proc/self/ns/uts', '/proc/self/ns/net'], { encoding: 'utf8' });
      expect(stdout).toBe(own.stdout);
    });
  },
);

/** A program that exits with the errno of keyctl(2); undefined without a compiler. */
function compileKeyctl(): string | undefined {
  const path = join(base, 'keyctl-probe');
  const source =
    '#include <errno.h>\n#include <unistd.h>\n#include <sys/syscall.h>\nint main(void) { return syscall(SYS_keyctl, 0, -3, 1) < 0 ? errno : 0; }';
  const made = spawnSync('cc', ['-static', '-o', path, '-x', 'c', '-'], { input: source });
  return made.status === 0 ? path : undefined;
}
