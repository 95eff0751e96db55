// A service's process for run-service.test.ts: `node sleeper.mjs --config FILE [--parent-fd 3]`.
import { runService } from '@flotilla/rpc';

await runService('volume', async (config) => {
  if (config.version === 'fails') throw new Error('no luck');
  if (config.version === 'crashes') setTimeout(() => Promise.reject(new Error('nobody caught this')), 20);
  const timer = setInterval(() => undefined, 1000);
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer);
      process.stdout.write('disposed\n');
    },
  };
});
