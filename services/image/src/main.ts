import { runService } from '@flotilla/rpc';
import { startImageService } from './server.js';

await runService('image', startImageService);
