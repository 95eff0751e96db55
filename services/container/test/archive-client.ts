import { execFileSync } from 'node:child_process';
import type { container } from '@flotilla/proto';
import { plainTar } from '@flotilla/testkit';
import { type ContainerClient, deadline } from './container-fixture.js';

/** A tar that came out of a container. */
export interface ReadTar {
  stat: container.PathStat | undefined;
  tar: Buffer;
}

/** `docker cp` as the gateway asks for it. */
export function archiveClient(client: ContainerClient) {
  return {
    async stat(name: string, path: string): Promise<container.PathStat> {
      const { stat } = await client.statPath({ name, path }, deadline);
      if (stat === undefined) throw new Error('no stat');
      return stat;
    },
    async read(name: string, path: string): Promise<ReadTar> {
      let stat: container.PathStat | undefined;
      const parts: Buffer[] = [];
      for await (const { frame } of client.readArchive({ name, path })) {
        if (frame?.$case === 'stat') stat = frame.value;
        else if (frame?.$case === 'data') parts.push(Buffer.from(frame.value));
      }
      return { stat, tar: Buffer.concat(parts) };
    },
    async write(
      name: string,
      path: string,
      tar: Buffer | AsyncIterable<Buffer>,
      options: { noOverwriteDirNonDir?: boolean; copyUidGid?: boolean } = {},
    ): Promise<void> {
      const { noOverwriteDirNonDir = true, copyUidGid = false } = options;
      async function* requests(): AsyncGenerator<container.WriteArchiveRequest> {
        yield { frame: { $case: 'start', value: { name, path, noOverwriteDirNonDir, copyUidGid } } };
        for await (const value of Buffer.isBuffer(tar) ? pieces(tar) : tar) yield { frame: { $case: 'data', value } };
      }
      await client.writeArchive(requests(), deadline);
    },
  };
}

/** A tar with the file `begun` that stays open until it is told to end. */
export function openBody() {
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => (end = resolve));
  async function* body(): AsyncGenerator<Buffer> {
    yield plainTar([['begun', Buffer.from('x')]]).subarray(0, 1024);
    await ended;
    yield Buffer.alloc(1024);
  }
  return { body: body(), end };
}

function* pieces(bytes: Buffer): Generator<Buffer> {
  const size = 256 * 1024;
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

/** What GNU tar lists of an archive: mode, owner in numbers, size, name; without times. */
export function listTar(tar: Buffer): string[] {
  const text = execFileSync('tar', ['-tv', '--numeric-owner', '--quoting-style=literal'], {
    input: tar,
    stdio: ['pipe', 'pipe', 'ignore'],
  }).toString();
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace(/\s+\d{4}-\d\d-\d\d \d\d:\d\d/, '').replaceAll(/\s+/g, ' '));
}
