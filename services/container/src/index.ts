export { startContainerService } from './server.js';
export type { ContainerServiceOverrides } from './server.js';
