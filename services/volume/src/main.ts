import { runService } from '@flotilla/rpc';
import { startVolumeService } from './server.js';

void runService('volume', startVolumeService);
