import { runService } from '@flotilla/rpc';
import { startRegistryProxyService } from './server.js';

await runService('registry-proxy', startRegistryProxyService);
