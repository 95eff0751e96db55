import { runService } from '@flotilla/rpc';
import { startContainerService } from './server.js';

await runService('container', (config) => startContainerService(config));
