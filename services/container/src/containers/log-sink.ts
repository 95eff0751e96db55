import { join } from 'node:path';
import { invalidArgument } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import type { LogSinkConfig } from '../logs/log-config.js';
import type { ShownContainer } from '../store/container-record.js';
import { containerDir, type ContainerSettings } from './settings.js';

const jsonFileOptions = new Set([
  'max-size',
  'max-file',
  'compress',
  'labels',
  'labels-regex',
  'env',
  'env-regex',
  'tag',
  'mode',
  'max-buffer-size',
]);
const sizeUnits: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12 };

/** The log configuration of a container with the engine's defaults filled in. @throws EngineError `invalidArgument`. */
export function completeLogConfig(
  given: container.LogConfig | undefined,
  settings: ContainerSettings,
): container.LogConfig {
  const isDefault = given === undefined || given.type === '' || given.type === settings.defaultLogDriver;
  const type = given === undefined || given.type === '' ? settings.defaultLogDriver : given.type;
  const config = isDefault ? { ...settings.defaultLogOptions, ...given?.config } : given.config;
  validateLogConfig({ type, config });
  return { type, config };
}

function validateLogConfig({ type, config }: container.LogConfig): void {
  if (type === 'none') return;
  if (type !== 'json-file') throw invalidArgument(`logger: no log driver named '${type}' is registered`);
  for (const option of Object.keys(config)) {
    if (!jsonFileOptions.has(option)) throw invalidArgument(`unknown log opt '${option}' for json-file log driver`);
  }
  const files = config['max-file'];
  if (files !== undefined && (!/^\d+$/.test(files) || Number(files) < 1)) {
    throw invalidArgument('max-file cannot be less than 1');
  }
  const size = config['max-size'];
  if (size !== undefined) parseSize(size);
}

/** Where and how a container's output is kept. */
export function logSinkOf(container: ShownContainer, settings: ContainerSettings): LogSinkConfig {
  const { type = 'json-file', config = {} } = container.hostConfig.logConfig ?? {};
  const path = join(containerDir(settings, container.id), `${container.id}-json.log`);
  if (type === 'none') return { driver: 'none', path };
  const size = config['max-size'] === undefined ? undefined : parseSize(config['max-size']);
  const attributes = logAttributes(container, config);
  return {
    driver: 'json-file',
    path,
    ...(size === undefined ? {} : { maxSizeBytes: size }),
    ...(config['max-file'] === undefined ? {} : { maxFiles: Number(config['max-file']) }),
    ...(Object.keys(attributes).length === 0 ? {} : { attributes }),
  };
}

function logAttributes(container: ShownContainer, options: Record<string, string>): Record<string, string> {
  const attributes: Record<string, string> = {};
  for (const name of listOf(options['labels'])) {
    const value = container.config.labels[name];
    if (value !== undefined) attributes[name] = value;
  }
  const env = new Map(
    container.config.env.map((entry) => [entry.split('=', 1)[0] ?? '', entry.slice(entry.indexOf('=') + 1)]),
  );
  for (const name of listOf(options['env'])) {
    const value = env.get(name);
    if (value !== undefined) attributes[name] = value;
  }
  if (options['tag'] !== undefined) attributes['tag'] = renderTag(options['tag'], container);
  return attributes;
}

function renderTag(template: string, container: ShownContainer): string {
  const fields: Readonly<Record<string, string>> = {
    ID: container.id.slice(0, 12),
    FullID: container.id,
    Name: container.name,
    ImageName: container.config.image,
    ImageFullID: container.imageId,
    ImageID: container.imageId.replace(/^sha256:/, '').slice(0, 12),
    DaemonName: 'docker',
  };
  return template.replace(/\{\{\s*\.(\w+)\s*\}\}/g, (whole, name: string) => fields[name] ?? whole);
}

function listOf(text: string | undefined): string[] {
  return (text ?? '').split(',').filter((name) => name !== '');
}

function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgt]?)b?$/i.exec(text);
  const unit = sizeUnits[(match?.[2] ?? '').toLowerCase()];
  const bytes = match === null || unit === undefined ? Number.NaN : Math.floor(Number(match[1]) * unit);
  if (!(bytes > 0)) throw invalidArgument(`invalid size: '${text}'`);
  return bytes;
}
