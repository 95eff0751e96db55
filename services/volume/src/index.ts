export { startVolumeService } from './server.js';
export type { VolumeOverrides } from './server.js';
