import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findAppArmorParser } from '@flotilla/sys';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AppArmor, askedProfile } from './apparmor.js';
import { defaultProfile } from './default-profile.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'flotilla-apparmor-'));
});
afterEach(() => rmSync(root, { recursive: true }));

function put(path: string, text: string, mode = 0o644): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
  chmodSync(join(root, path), mode);
}

/** A machine with AppArmor, whose parser notes what it is given and tells the kernel. */
function machine(loaded = 'other (enforce)\n'): void {
  const profiles = join(root, 'sys/kernel/security/apparmor/profiles');
  put('sys/module/apparmor/parameters/enabled', 'Y\n');
  put('sys/kernel/security/apparmor/profiles', loaded);
  put(
    'sbin/apparmor_parser',
    `#!/bin/sh\necho "$@" >> ${root}/arguments\ncat > ${root}/text\necho "docker-default (enforce)" >> ${profiles}\n`,
    0o755,
  );
}

const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const plain = { securityOpt: [], privileged: false };

describe('AppArmor', () => {
  it('is nothing where the kernel does not have it, or nothing loads profiles', async () => {
    const profile = () => new AppArmor(root).profileFor({ securityOpt: ['apparmor=mine'], privileged: false });
    expect(await profile()).toBeUndefined();
    put('sys/module/apparmor/parameters/enabled', 'Y\n');
    expect(await profile()).toBeUndefined();
    put('usr/sbin/apparmor_parser', '#!/bin/sh\n', 0o755);
    expect(await profile()).toBe('mine');
    put('sys/module/apparmor/parameters/enabled', 'N\n');
    expect(await profile()).toBeUndefined();
  });

  it('gives containers the default profile unless they say otherwise', async () => {
    machine();
    const appArmor = new AppArmor(root);
    expect(await appArmor.profileFor({ ...plain, privileged: true })).toBe('unconfined');
    expect(await appArmor.profileFor({ ...plain, securityOpt: ['apparmor=unconfined'] })).toBe('unconfined');
    expect(await appArmor.profileFor({ privileged: true, securityOpt: ['apparmor:mine'] })).toBe('mine');
    expect(read('sys/kernel/security/apparmor/profiles')).not.toContain('docker-default');
    expect(await appArmor.profileFor(plain)).toBe('docker-default');
    expect(read('sys/kernel/security/apparmor/profiles')).toContain('docker-default (enforce)');
  });

  it('loads the default profile once, and again when the kernel has lost it', async () => {
    machine();
    put('proc/self/attr/current', 'flotilla (enforce)\n\0');
    const appArmor = new AppArmor(root);
    await Promise.all([appArmor.profileFor(plain), appArmor.profileFor(plain), appArmor.ensureDefault()]);
    await appArmor.profileFor(plain);
    expect(read('arguments')).toBe('--replace --skip-cache\n');
    expect(read('text')).toContain('signal (receive) peer=flotilla,');
    put('sys/kernel/security/apparmor/profiles', 'docker-default-2 (enforce)\n');
    await appArmor.profileFor(plain);
    expect(read('arguments').split('\n')).toHaveLength(3);
  });

  it('says why it cannot be loaded', async () => {
    machine();
    put('sbin/apparmor_parser', '#!/bin/sh\necho "syntax error" >&2; exit 1\n', 0o755);
    await expect(new AppArmor(root).profileFor(plain)).rejects.toMatchObject({
      kind: 'internal',
      message: expect.stringMatching(
        /^AppArmor enabled on system but the docker-default profile could not be loaded: [^]*syntax error/,
      ) as unknown,
    });
    rmSync(join(root, 'sys/kernel'), { recursive: true });
    await expect(new AppArmor(root).ensureDefault()).rejects.toThrow(
      'Could not check if docker-default AppArmor profile was loaded',
    );
  });

  it('reads the option', () => {
    expect(askedProfile(['seccomp=unconfined'])).toBe('');
    expect(askedProfile(['apparmor=a', 'label=disable', 'apparmor:b'])).toBe('b');
  });
});

describe('the default profile', () => {
  it('stands alone where the distribution has no parts for it', () => {
    const text = defaultProfile({ engineProfile: 'unconfined', hasTunables: false, hasBase: false });
    expect(text).toMatch(/^@\{PROC\}=\/proc\/\n/);
    expect(text).not.toContain('#include');
    expect(text.match(/peer=unconfined/g)).toHaveLength(1);
  });

  // Needs no AppArmor in the kernel.
  const parser = process.env['APPARMOR_PARSER'] ?? findAppArmorParser();
  it.skipIf(parser === undefined)('is one for the parser', () => {
    const text = defaultProfile({ engineProfile: 'unconfined', hasTunables: false, hasBase: false });
    execFileSync(parser ?? '', ['--skip-kernel-load', '--skip-cache'], {
      input: text,
      stdio: ['pipe', 'pipe', 'pipe'],
    });
  });
});
