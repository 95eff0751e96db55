export { serviceNames } from './base-config.js';
export type { NatsSettings, ServiceName } from './base-config.js';
export type { IdMappings } from './container-config.js';
export { parseDaemonFlags } from './daemon-flags.js';
export type { DaemonFlags } from './daemon-flags.js';
export { readDaemonSettings } from './daemon-settings.js';
export type { DaemonSettings } from './daemon-settings.js';
export { isLogDriver, LOG_DRIVERS } from './log-drivers.js';
export type { LogDriver } from './log-drivers.js';
export { reloadedSettings } from './reloaded-settings.js';
export { parseServiceConfig, readServiceConfig, serviceConfigSchemas } from './service-config.js';
export type {
  ContainerConfig,
  GatewayConfig,
  ImageConfig,
  NetworkConfig,
  RegistryConfig,
  ServiceConfig,
  ServiceConfigs,
  VolumeConfig,
} from './service-config.js';
export { defaultIpv4Pools, serviceAddress, serviceFiles } from './service-files.js';
export type { EngineFacts } from './service-files.js';
