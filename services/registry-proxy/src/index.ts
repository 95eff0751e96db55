export { startRegistryProxyService } from './server.js';
