import { isLogDriver } from '@flotilla/config';
import type { container } from '@flotilla/proto';
import { timestampToNs } from '@flotilla/proto';
import { timeText } from '../logs/files/line-clock.js';
import type { LogSinkConfig } from '../logs/log-config.js';
import { cacheDefaults, checkLogOptions, sinkConfig } from '../logs/options/sink-config.js';
import type { ShownContainer } from '../store/container-record.js';
import { containerDir, type ContainerSettings } from './settings.js';

/** The log configuration of a container with the engine's defaults filled in. @throws EngineError `invalidArgument`. */
export function completeLogConfig(
  given: container.LogConfig | undefined,
  settings: ContainerSettings,
): container.LogConfig {
  const { defaultLogDriver, defaultLogOptions } = settings;
  const type = given === undefined || given.type === '' ? defaultLogDriver : given.type;
  const defaults =
    type === defaultLogDriver ? defaultLogOptions : type === 'none' ? {} : cacheDefaults(defaultLogOptions);
  const config = { ...defaults, ...given?.config };
  checkLogOptions(type, config);
  return { type, config };
}

/** Where and how a container's output is kept and sent. */
export function logSinkOf(container: ShownContainer, settings: ContainerSettings): LogSinkConfig {
  const { type = 'json-file', config = {} } = container.hostConfig.logConfig ?? {};
  const { id, name, imageId, path, args, createdAt } = container;
  // Only drivers that were checked at create get here.
  return sinkConfig(containerDir(settings, id), isLogDriver(type) ? type : 'none', config, {
    ...{ id, name, imageId },
    imageName: container.config.image,
    command: [path, ...args],
    createdAt: createdAt === undefined ? '' : timeText(timestampToNs(createdAt)),
    labels: container.config.labels,
    env: container.config.env,
  });
}
