import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { MNT_DETACH, mount, umount } from '@flotilla/sys';
import { expectNoLeaks, snapshotKernelState } from './kernel-state.js';
import { createNetworkNamespace } from './network-namespace.js';
import { makeTempDir } from './temp-dir.js';

const isRoot = process.getuid?.() === 0;

describe('the leak check', () => {
  it('sees processes and sockets under its roots, and nothing else', async () => {
    await using dir = await makeTempDir('leaks');
    await using elsewhere = await makeTempDir('leaks');
    const before = await snapshotKernelState({ roots: [dir.path], names: /^leak-/ });
    await expectNoLeaks(before, 0);
    const child = spawn('sleep', ['60'], { cwd: dir.path, stdio: 'ignore' });
    const other = spawn('sleep', ['61'], { cwd: elsewhere.path, stdio: 'ignore' });
    const server = createServer();
    server.listen(join(dir.path, 'x.sock'));
    await Promise.all([once(child, 'spawn'), once(other, 'spawn'), once(server, 'listening')]);
    const failure = await expectNoLeaks(before, 100).then(
      () => '',
      (error: unknown) => String(error),
    );
    expect(failure).toContain('processes: sleep 60');
    expect(failure).toContain(`sockets: unix ${dir.path}/x.sock`);
    expect(failure).not.toContain('sleep 61');
    child.kill('SIGKILL');
    other.kill('SIGKILL');
    server.close();
    await expectNoLeaks(before);
  });

  it.skipIf(!isRoot)('sees mounts, also a second one on the same place (needs root)', async () => {
    await using dir = await makeTempDir('leaks');
    const target = join(dir.path, 'm');
    await mkdir(target);
    const scope = { roots: [dir.path], names: /^leak-/ };
    const before = await snapshotKernelState(scope);
    mount('x', target, 'tmpfs');
    const once = await snapshotKernelState(scope);
    mount('x', target, 'tmpfs');
    await expect(expectNoLeaks(before, 0)).rejects.toThrow(`mounts: ${target} (tmpfs)`);
    await expect(expectNoLeaks(once, 0)).rejects.toThrow(`mounts: ${target} (tmpfs) (2)`);
    umount(target, MNT_DETACH);
    await expectNoLeaks(once, 0);
    umount(target, MNT_DETACH);
    await expectNoLeaks(before, 0);
  });

  it.skipIf(!isRoot)(
    'sees links, rules and ports of a network namespace, and the namespace itself (needs root)',
    async () => {
      using network = createNetworkNamespace();
      const before = await snapshotKernelState({ roots: ['/nonexistent'], names: /^leak/, netns: network.name });
      network.run('ip', ['link', 'add', 'leak-1', 'type', 'bridge']);
      network.run('nft', ['add table inet leak; add chain inet leak c; add rule inet leak c counter accept']);
      const failure = await expectNoLeaks(before, 0).then(
        () => '',
        (error: unknown) => String(error),
      );
      expect(failure).toContain('links: leak-1');
      expect(failure).toContain('rules: table');
      expect(failure).toContain('rules: rule');
      network.run('ip', ['link', 'del', 'leak-1']);
      network.run('nft', ['delete table inet leak']);
      await expectNoLeaks(before, 0);
      const second = `leak-${process.pid}`;
      execFileSync('ip', ['netns', 'add', second]);
      try {
        await expect(expectNoLeaks(before, 0)).rejects.toThrow(`namespaces: netns ${second}`);
      } finally {
        execFileSync('ip', ['netns', 'del', second]);
      }
      await expectNoLeaks(before, 0);
    },
  );

  it.skipIf(!isRoot)('sees UDP flows that were led elsewhere (needs root)', async () => {
    using network = createNetworkNamespace();
    const before = await snapshotKernelState({ roots: ['/nonexistent'], names: /^leak/, netns: network.name });
    network.run('nft', [
      'add table ip flows; add chain ip flows out { type nat hook output priority -100; }; add rule ip flows out udp dport 7 dnat to 127.0.0.1:9',
    ]);
    const send = (port: number): string =>
      network.run(process.execPath, [
        '-e',
        `const s = require('dgram').createSocket('udp4'); s.send('x', ${port}, '127.0.0.2', () => s.close());`,
      ]);
    send(8);
    await expectNoLeaks(before, 0);
    send(7);
    await expect(expectNoLeaks(before, 0)).rejects.toThrow(
      /flows: udp 127\.\S+ to 127\.0\.0\.2:7, which is 127\.0\.0\.1:9/,
    );
  });
});
