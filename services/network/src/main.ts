import { runService } from '@flotilla/rpc';
import { startNetworkService } from './server.js';

void runService('network', startNetworkService);
