// A service that only says that it serves; the launcher's tests start it under the names of the real ones.
// `<exec-root>/<service>.<what>` changes it: `broken` ends it at once, `deaf` keeps it from ending.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createLogger } from '@flotilla/log';
import { runService, serve } from '@flotilla/rpc';

const name = process.argv[1].split('/').at(-1).replace('.js', '');
await runService(name, async (config) => {
  const is = (what) => existsSync(join(config.execRoot, `${name}.${what}`));
  if (is('broken')) throw new Error('broken on purpose');
  if (is('deaf')) process.removeAllListeners('SIGTERM').on('SIGTERM', () => undefined);
  const log = createLogger({ service: name, ...config.log });
  return serve({ listen: config.listen, services: [], log, service: name, version: config.version });
});
