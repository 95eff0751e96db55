import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { makeTempDir } from '@flotilla/testkit';
import { refuseSocketsInUse } from './host-sockets.js';

it('refuses sockets that somebody listens on and files in their place, nothing else', async () => {
  await using temp = await makeTempDir('hosts');
  const path = join(temp.path, 'docker.sock');
  const hosts = [`unix://${join(temp.path, 'free.sock')}`, `unix://${path}`];
  await refuseSocketsInUse(hosts);
  const server = createServer().listen(path);
  await once(server, 'listening');
  await expect(refuseSocketsInUse(hosts)).rejects.toThrow(`another process listens on ${path}`);
  server.close();
  await once(server, 'close');
  await refuseSocketsInUse(hosts);
  writeFileSync(path, '');
  await expect(refuseSocketsInUse(hosts)).rejects.toThrow(`${path} exists and is not a socket`);
});
