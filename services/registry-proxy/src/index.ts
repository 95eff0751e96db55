export { startRegistryProxyService } from './server.js';
export { defaultRegistrySettings } from './config.js';
export type { RegistryProxyConfig, RegistrySettings } from './config.js';
