import { runService } from '@flotilla/rpc';
import { startRegistryProxyService } from './server.js';

void runService('registry-proxy', startRegistryProxyService);
