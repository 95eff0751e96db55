import { runService } from '@flotilla/rpc';
import { startImageService } from './server.js';

void runService('image', startImageService);
