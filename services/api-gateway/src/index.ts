export { parseApiAddress, startApiGateway } from './server.js';
export type { GatewayDeps, RunningGateway } from './server.js';
