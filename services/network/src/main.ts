import { runService } from '@flotilla/rpc';
import { startNetworkService } from './server.js';

await runService('network', startNetworkService);
