// Runs a container as the service does, in a process that the test kills. Argument: JSON with execRoot and either `create` or `reattach`.
import { createLogger } from '@flotilla/log';
import { ShimRuntime } from '../../dist/runtime/shim-runtime.js';

const { execRoot, create, reattach } = JSON.parse(process.argv[2]);
const runtime = await ShimRuntime.open({
  execRoot,
  log: createLogger({ service: 'host', level: 'error' }),
  onFatal: (error) => {
    throw error;
  },
});
const task = create ? await runtime.create(create) : await runtime.reattach(reattach);
if (create) await task.start();
process.stdout.write(`${JSON.stringify({ pid: task.pid, shimAddress: task.shimAddress })}\n`);
setInterval(() => undefined, 1000);
