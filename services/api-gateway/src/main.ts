import { runService } from '@flotilla/rpc';
import { startApiGateway } from './server.js';

void runService('api-gateway', (config) => startApiGateway(config));
