import { runService } from '@flotilla/rpc';
import { startVolumeService } from './server.js';

await runService('volume', startVolumeService);
