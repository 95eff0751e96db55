import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { isMountPoint } from '@flotilla/sys';
import { makeTempDir, mountSilentFileSystem, waitFor } from '@flotilla/testkit';
import { containerId, deadline, holder, makeVolumeService } from './volume-fixture.js';

const canMount = process.getuid?.() === 0 && existsSync('/dev/fuse');
const kernelLimits = { answerMs: 600, measureMs: 300, atOnce: 3 };
type VolumeClient = Awaited<ReturnType<typeof makeVolumeService>>['client'];

const bound = (name: string, device: string) => ({
  ...{ name, driver: '', labels: {}, options: { type: 'none', o: 'bind', device } },
});
const plain = (name: string) => ({ name, driver: '', labels: {}, options: {} });
const use = (name: string) => ({
  ...{ containerId: containerId('a'), name, destination: '/d', readOnly: false, propagation: '' },
});
const hold = (client: VolumeClient, name: string, server: string) =>
  client.acquireVolume(
    {
      ...bound(name, join(server, name)),
      ...{ holder: holder('a'), destination: '/d', readOnly: false, isAnonymous: false },
    },
    deadline,
  );

describe.skipIf(!canMount)('a file server that does not answer (needs root and FUSE)', () => {
  it('keeps only the calls for its volume waiting, which can be cancelled', async () => {
    await using directory = await makeTempDir('volume-silent');
    using silent = mountSilentFileSystem(join(directory.path, 'server'));
    // None of it waits for a limit.
    await using service = await makeVolumeService({ kernelLimits: { ...kernelLimits, answerMs: 600_000 } });
    const { client, pathOf } = service;
    await hold(client, 'stuck', silent.target);
    let isOver = false;
    const mounting = client.mountVolume(use('stuck'), deadline).finally(() => (isOver = true));
    void mounting.catch(() => undefined);
    // Everything else goes on.
    const stop = new AbortController();
    const waiting = client.acquireVolume(
      {
        ...plain('stuck'),
        ...{ holder: holder('b'), destination: '/d', readOnly: false, isAnonymous: false },
      },
      { ...deadline, signal: stop.signal },
    );
    const refused = expect(waiting).rejects.toMatchObject({ kind: 'cancelled' });
    await client.createVolume(plain('other'), deadline);
    expect((await client.listVolumes({}, deadline)).volumes).toHaveLength(2);
    expect((await client.getVolume({ name: 'stuck' }, deadline)).volume?.heldBy).toEqual([holder('a')]);
    expect((await client.getVolumeUsage({}, deadline)).volumes).toHaveLength(2);
    const pruned = await client.pruneVolumes({ all: true, labels: [], excludedLabels: [] }, deadline);
    expect(pruned.removed).toEqual(['other']);
    stop.abort();
    await refused;
    expect(isOver).toBe(false);
    silent.speak();
    await mounting;
    expect(isMountPoint(pathOf('stuck'))).toBe(true);
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
  });

  it('is given up, and nothing is done with its volume until it has answered', async () => {
    await using directory = await makeTempDir('volume-silent');
    using silent = mountSilentFileSystem(join(directory.path, 'server'));
    await using service = await makeVolumeService({ kernelLimits });
    const { client, pathOf } = service;
    for (const name of ['stuck', 'second', 'third', 'fourth']) await hold(client, name, silent.target);
    const mounting = client.mountVolume(use('stuck'), deadline);
    await expect(mounting).rejects.toMatchObject({
      kind: 'deadlineExceeded',
      message: expect.stringMatching(
        /^error while mounting volume '.*\/stuck\/_data': mount .*: no answer from the kernel for \d+ seconds$/,
      ) as string,
    });
    // Its claim was given up with its caller.
    expect((await client.getVolume({ name: 'stuck' }, deadline)).volume?.heldBy).toEqual([holder('a')]);
    await expect(client.mountVolume(use('stuck'), deadline)).rejects.toThrow('no answer from the kernel');
    // It may be mounted yet, wherever its directory is by then.
    await client.releaseVolumes({ containerId: containerId('a'), removeAnonymous: false }, deadline);
    await expect(client.removeVolume({ name: 'stuck', force: true }, deadline)).rejects.toThrow(
      /^remove stuck: mount .*: no answer from the kernel for \d+ seconds$/,
    );
    // Threads that hang are few.
    const more = await Promise.allSettled(['second', 'third'].map((name) => client.mountVolume(use(name), deadline)));
    expect(more.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(client.mountVolume(use('fourth'), deadline)).rejects.toThrow(
      '3 calls for volumes wait for the kernel already: mount ',
    );
    // The server is back: what it answers comes too late, and nothing stays mounted of it.
    silent.speak();
    await waitFor(
      () =>
        client.mountVolume(use('fourth'), deadline).then(
          () => true,
          () => false,
        ),
      { what: 'a thread to be free' },
    );
    expect(isMountPoint(pathOf('fourth'))).toBe(true);
    await waitFor(() => ['stuck', 'second', 'third'].every((name) => !isMountPoint(pathOf(name))), {
      what: 'the late mounts to be gone',
    });
    await waitFor(
      () =>
        client.removeVolume({ name: 'stuck', force: false }, deadline).then(
          () => true,
          () => false,
        ),
      {
        what: 'a volume without open calls to be removable',
      },
    );
    await client.unmountVolumes({ containerId: containerId('a') }, deadline);
  });

  it('leaves a volume without a size, and out of a prune', async () => {
    await using service = await makeVolumeService({ kernelLimits });
    const { client, pathOf } = service;
    for (const name of ['good', 'silent']) await client.createVolume(plain(name), deadline);
    await writeFile(join(pathOf('good'), 'file'), 'four');
    await mkdir(join(pathOf('silent'), 'inside'));
    using _silent = mountSilentFileSystem(join(pathOf('silent'), 'inside'));
    const sizes = async () =>
      new Map((await client.getVolumeUsage({}, deadline)).volumes.map(({ name, sizeBytes }) => [name, sizeBytes]));
    const expected = new Map([
      ['good', 4n],
      ['silent', -1n],
    ]);
    expect(await sizes()).toEqual(expected);
    expect(await sizes()).toEqual(expected);
    const pruned = await client.pruneVolumes({ all: true, labels: [], excludedLabels: [] }, deadline);
    expect(pruned).toMatchObject({ removed: ['good'], reclaimedBytes: 4n });
    expect(existsSync(join(pathOf('silent')))).toBe(true);
  });
});
