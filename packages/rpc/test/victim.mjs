// Serves until it is killed: `node victim.mjs SOCKET`. Used by kill.test.ts.
import { serve, serverStream, serviceEntry, unary } from '@flotilla/rpc';
import { silentLogger } from '@flotilla/log';
import { NoteService } from '../dist/test-service.js';

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
await serve({
  listen: { kind: 'unix', path: process.argv[2] },
  services: [
    serviceEntry(NoteService, {
      one: unary(async ({ text }) => {
        await pause(5);
        return { text };
      }),
      many: serverStream(async function* () {
        for (let i = 0; ; i += 1) {
          yield { text: String(i) };
          await pause(1);
        }
      }),
    }),
  ],
  log: silentLogger(),
  service: 'note',
  version: '1',
});
process.stdout.write('ready\n');
