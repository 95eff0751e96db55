import { readFileSync } from 'node:fs';
import * as z from 'zod/mini';
import { invalidArgument, messageOf } from '@flotilla/errors';
import { baseShape } from './base-config.js';
import type { ServiceName } from './base-config.js';
import { containerBlock } from './container-config.js';
import { gatewayBlock } from './gateway-config.js';
import { imageBlock } from './image-config.js';
import { networkBlock } from './network-config.js';
import { parse, parseJsonObject } from './parse.js';
import { registryBlock } from './registry-config.js';
import { volumeBlock } from './volume-config.js';

/** Schema of each service's file: the base and one block of its own. Made when asked for: a process needs one of them. */
export const serviceConfigSchemas = {
  'api-gateway': () => z.strictObject({ ...baseShape(), gateway: gatewayBlock() }),
  image: () => z.strictObject({ ...baseShape(), image: imageBlock() }),
  container: () => z.strictObject({ ...baseShape(), container: containerBlock() }),
  network: () => z.strictObject({ ...baseShape(), network: networkBlock() }),
  volume: () => z.strictObject({ ...baseShape(), volume: volumeBlock() }),
  'registry-proxy': () => z.strictObject({ ...baseShape(), registry: registryBlock() }),
};

export type ServiceConfigs = { [N in ServiceName]: z.output<ReturnType<(typeof serviceConfigSchemas)[N]>> };
/** The file of one service, checked. */
export type ServiceConfig<N extends ServiceName = ServiceName> = ServiceConfigs[N];

export type GatewayConfig = ServiceConfig<'api-gateway'>;
export type ImageConfig = ServiceConfig<'image'>;
export type ContainerConfig = ServiceConfig<'container'>;
export type NetworkConfig = ServiceConfig<'network'>;
export type VolumeConfig = ServiceConfig<'volume'>;
export type RegistryConfig = ServiceConfig<'registry-proxy'>;

/** Check the text of a service's file. @throws EngineError `invalidArgument` naming the key */
export function parseServiceConfig<N extends ServiceName>(service: N, text: string, source: string): ServiceConfig<N> {
  const config = parse(serviceConfigSchemas[service](), parseJsonObject(text, source), source) as ServiceConfig<N>;
  if (config.service !== service) throw invalidArgument(`${source}: service: this is the file of ${config.service}`);
  return config;
}

/** Read and check a service's file. @throws EngineError `invalidArgument` naming the file or the key */
export function readServiceConfig<N extends ServiceName>(service: N, path: string): ServiceConfig<N> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw invalidArgument(`cannot read the configuration: ${messageOf(error)}`, { cause: error });
  }
  return parseServiceConfig(service, text, path);
}
