import { join } from 'node:path';
import {
  createNetworkNamespace,
  dockerArchive,
  startDockerd,
  type DockerdPeer,
  type NetworkNamespace,
} from '@flotilla/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { killProcess } from './kill-process.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

const cacheDirectory = join(import.meta.dirname, '../../.cache');

describe('ipc namespaces and shared memory', () => {
  let t: TestEngine;
  let dockerd: DockerdPeer;
  let peerHost: NetworkNamespace;
  beforeAll(async () => {
    t = await startTestEngine();
    peerHost = createNetworkNamespace();
    dockerd = await startDockerd({ directory: `${t.directory}/dockerd`, cacheDirectory, namespace: peerHost });
    await onDockerd(['load', '-q'], dockerArchive(t.busybox, ['busybox:latest']));
  }, 180_000);
  afterAll(async () => {
    const ids = (await onDockerd(['ps', '-aq'])).stdout.split('\n').filter(Boolean);
    if (ids.length > 0) await onDockerd(['rm', '-f', ...ids]);
    await dockerd[Symbol.asyncDispose]();
    peerHost[Symbol.dispose]();
    await t[Symbol.asyncDispose]();
  }, 120_000);
  afterEach(async () => {
    const ids = (await t.ok('ps', '-aq')).split('\n').filter(Boolean);
    if (ids.length > 0) await t.ok('rm', '-fv', ...ids);
  });
  const onDockerd = (args: string[], input?: Buffer) =>
    runCommand('docker', args, {
      env: { DOCKER_HOST: `unix://${dockerd.socket}`, DOCKER_CONFIG: `${t.directory}/docker-config` },
      ...(input === undefined ? {} : { input }),
    });
  const donor = (name: string, ...options: string[]) =>
    t.ok('run', '-d', '--name', name, ...options, 'busybox', 'sleep', '600');
  const joinErrors = async (of: string) =>
    (await t.docker(['run', '--rm', '--ipc', `container:${of}`, 'busybox', 'true'])).stderr;

  it.each([
    ['as it comes', []],
    ['private', ['--ipc', 'private', '--shm-size', '8m']],
    ['shareable', ['--ipc', 'shareable', '--shm-size', '8m']],
    ['shareable and read-only', ['--ipc', 'shareable', '--read-only']],
    ['none', ['--ipc', 'none']],
    ['with a mount of the user’s', ['--ipc', 'shareable', '--tmpfs', '/dev/shm:size=4m']],
  ])('are as dockerd has them: %s', async (_what, options) => {
    const script =
      'grep " /dev/shm " /proc/mounts | cut -d" " -f3,4 | tr , "\\n" | grep -v ^inode64 | sort; touch /dev/shm/x; ls -ld /dev/shm | cut -c1-10';
    const args = ['run', '--rm', ...options, 'busybox', 'sh', '-c', script];
    const [ours, theirs] = await Promise.all([t.docker(args), onDockerd(args)]);
    expect(ours).toEqual(theirs);
  });

  it('are shown by inspect as dockerd does', async () => {
    const format = '{{.HostConfig.IpcMode}} {{json .HostConfig.SecurityOpt}} {{.HostConfig.ShmSize}}';
    for (const options of [[], ['--ipc', 'host'], ['--ipc', 'shareable', '--shm-size', '1m'], ['--privileged']]) {
      const args = ['create', '--name', 'shown', ...options, 'busybox', 'true'];
      const answers = await Promise.all(
        [(list: string[]) => t.docker(list), onDockerd].map(async (docker) => {
          await docker(args);
          const { stdout } = await docker(['inspect', '-f', format, 'shown']);
          await docker(['rm', 'shown']);
          return stdout;
        }),
      );
      expect(answers[0]).toBe(answers[1]);
    }
  });

  it('share memory and namespace with those who join, and with those who join them', async () => {
    const id = await donor('donor', '--ipc', 'shareable', '--shm-size', '1m');
    await t.ok('run', '-d', '--name', 'second', '--ipc', 'container:donor', 'busybox', 'sleep', '600');
    await t.ok('exec', 'donor', 'sh', '-c', 'echo hello > /dev/shm/word');
    const look = 'cat /dev/shm/word; readlink /proc/self/ns/ipc; df -k /dev/shm | tail -1 | tr -s " " | cut -d" " -f2';
    const seen = await t.ok('exec', 'donor', 'sh', '-c', look);
    expect(seen).toMatch(/^hello\nipc:\[\d+\]\n1024$/);
    expect(await t.ok('exec', 'second', 'sh', '-c', look)).toBe(seen);
    const third = ['run', '--rm', '--ipc', 'container:second', 'busybox', 'sh', '-c'];
    expect(await t.ok(...third, `${look}; echo by the third > /dev/shm/word`)).toBe(seen);
    expect(await t.ok('exec', 'donor', 'cat', '/dev/shm/word')).toBe('by the third');
    // By id, so that another name changes nothing.
    expect(await t.ok('inspect', '-f', '{{.HostConfig.IpcMode}}', 'second')).toBe(`container:${id}`);
    // The end of the donor takes nothing from those who joined.
    await t.ok('rm', '-f', 'donor');
    expect(await t.ok('exec', 'second', 'cat', '/dev/shm/word')).toBe('by the third');
    expect(await joinErrors('second')).toBe('');
    await t.ok('stop', '-t', '0', 'second');
    expect((await t.docker(['start', 'second'])).stderr).toContain(
      `failed to join IPC namespace: No such container: ${id}`,
    );
  });

  it('are the host’s with --ipc host, for those who join, too', async () => {
    await donor('hosted', '--ipc', 'host');
    const namespace = (await runCommand('readlink', ['/proc/self/ns/ipc'])).stdout.trim();
    const args = ['run', '--rm', '--ipc', 'container:hosted', 'busybox', 'sh', '-c'];
    expect(await t.ok(...args, `readlink /proc/self/ns/ipc; ls -d ${t.directory}`)).toBe(
      `${namespace}\n${t.directory}`,
    );
  });

  it('are refused in dockerd’s words', async () => {
    await donor('closed');
    for (const mode of ['private', 'none']) {
      await t.ok('rm', '-f', 'closed');
      const closed = await donor('closed', '--ipc', mode);
      expect(await joinErrors('closed')).toContain(
        `failed to join IPC namespace: container ${closed}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)`,
      );
    }
    expect(await joinErrors('nobody')).toContain('No such container: nobody');
    const resting = await t.ok('create', '--name', 'resting', '--ipc', 'shareable', 'busybox', 'true');
    expect(await joinErrors('resting')).toContain(`failed to join IPC namespace: container ${resting} is not running`);
    const pid = await t.docker(['run', '--rm', '--pid', 'container:resting', 'busybox', 'true']);
    expect(pid.stderr).toContain(`failed to join PID namespace: container ${resting} is not running`);
  });

  it('can be joined after kill -9 of the container service', async () => {
    await donor('donor', '--ipc', 'shareable');
    await t.ok('exec', 'donor', 'sh', '-c', 'echo kept > /dev/shm/word');
    const [service] = (await t.engine.services()).filter((one) => one.service === 'container');
    killProcess(service?.pid ?? 0);
    const cat = ['run', '--rm', '--ipc', 'container:donor', 'busybox', 'cat', '/dev/shm/word'];
    expect(await t.ok(...cat)).toBe('kept');
    await t.ok('restart', '-t', '0', 'donor');
    expect((await t.docker(cat)).stderr).toContain('No such file');
  });
});

it('the mode of containers that do not say can be set', async () => {
  await using t = await startTestEngine({ args: ['--default-ipc-mode', 'shareable'] });
  await t.ok('run', '-d', '--name', 'donor', 'busybox', 'sleep', '600');
  expect(await t.ok('inspect', '-f', '{{.HostConfig.IpcMode}}', 'donor')).toBe('shareable');
  await t.ok('run', '--rm', '--ipc', 'container:donor', 'busybox', 'true');
});
