export { startNetworkService } from './server.js';
export type { NetworkOverrides } from './server.js';
