export { startImageService } from './server.js';
export type { ImageServiceDeps } from './server.js';
