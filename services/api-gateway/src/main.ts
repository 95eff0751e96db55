import { runService } from '@flotilla/rpc';
import { startApiGateway } from './server.js';

await runService('api-gateway', (config) => startApiGateway(config));
