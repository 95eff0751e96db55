import { join } from 'node:path';
import { findAppArmorParser } from '@flotilla/sys';
import { createNetworkNamespace, dockerArchive, startDockerd } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

const hasAppArmor = findAppArmorParser() !== undefined;
const named = ['--security-opt', 'apparmor=unconfined'];

describe('AppArmor', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const profileIn = (...options: string[]) =>
    t.ok('run', '--rm', ...options, 'busybox', 'cat', '/proc/self/attr/current');

  it.skipIf(hasAppArmor)('is told as by dockerd on a machine without it', async () => {
    const directory = `${t.directory}/dockerd`;
    const cacheDirectory = join(import.meta.dirname, '../../.cache');
    using host = createNetworkNamespace();
    await using dockerd = await startDockerd({ directory, cacheDirectory, namespace: host });
    const env = { DOCKER_HOST: `unix://${dockerd.socket}`, DOCKER_CONFIG: `${t.directory}/docker-config` };
    await runCommand('docker', ['load', '-q'], { env, input: dockerArchive(t.busybox, ['busybox:latest']) });
    const engines = [
      (args: string[]) => t.docker(args),
      (args: string[]) => runCommand('docker', args, { env }),
    ] as const;
    const tell = async (docker: (typeof engines)[number], options: string[]): Promise<unknown[]> => {
      const profile = async () => (await docker(['inspect', '-f', '{{json .AppArmorProfile}}', 'told'])).stdout;
      const answers: unknown[] = [
        (await docker(['create', '--name', 'told', ...options, 'busybox', 'sleep', '600'])).code,
      ];
      answers.push(await profile(), (await docker(['start', 'told'])).code, await profile());
      answers.push(await docker(['exec', 'told', 'echo', 'done']));
      await docker(['rm', '-f', 'told']);
      return answers;
    };
    for (const options of [[], named, ['--security-opt', 'apparmor=nowhere']]) {
      const [ours, theirs] = await Promise.all(engines.map((docker) => tell(docker, options)));
      expect(ours).toEqual(theirs);
    }
    expect(await t.ok('info', '-f', '{{json .SecurityOptions}}')).not.toContain('apparmor');
  });

  it.runIf(hasAppArmor)('confines containers unless they say otherwise', async () => {
    expect(await t.ok('info', '-f', '{{json .SecurityOptions}}')).toContain('name=apparmor');
    expect(await profileIn()).toBe('docker-default (enforce)');
    expect(await profileIn(...named)).toBe('unconfined');
    expect(await profileIn('--privileged')).toBe('unconfined');
    const mount = await t.docker([
      'run',
      '--rm',
      '--cap-add',
      'SYS_ADMIN',
      'busybox',
      'mount',
      '-t',
      'tmpfs',
      'x',
      '/mnt',
    ]);
    expect(mount.code).not.toBe(0);
    const missing = await t.docker(['run', '--rm', '--security-opt', 'apparmor=nowhere', 'busybox', 'true']);
    expect(missing.stderr).toContain('apparmor');
  });
});
