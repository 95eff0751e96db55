import { runService } from '@flotilla/rpc';
import { startContainerService } from './server.js';

void runService('container', (config) => startContainerService(config));
