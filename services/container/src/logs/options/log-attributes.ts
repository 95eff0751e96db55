import { hostname } from 'node:os';
import { invalidArgument } from '@flotilla/errors';

/** What tags and attributes are made of. */
export interface LoggedContainer {
  readonly id: string;
  /** Without a slash. */
  readonly name: string;
  readonly imageId: string;
  readonly imageName: string;
  /** The program and its arguments. */
  readonly command: readonly string[];
  readonly createdAt: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly env: readonly string[];
}

type Options = Readonly<Record<string, string>>;

/** Options that each driver with attributes takes. */
export const ATTRIBUTE_OPTIONS = ['labels', 'labels-regex', 'env', 'env-regex', 'tag'];

const fields: Readonly<Record<string, (container: LoggedContainer) => string>> = {
  ID: ({ id }) => id.slice(0, 12),
  FullID: ({ id }) => id,
  ContainerID: ({ id }) => id,
  Name: ({ name }) => name,
  ContainerName: ({ name }) => `/${name}`,
  ImageID: ({ imageId }) => imageId.slice(0, 12),
  ImageFullID: ({ imageId }) => imageId,
  ContainerImageID: ({ imageId }) => imageId,
  ImageName: ({ imageName }) => imageName,
  ContainerImageName: ({ imageName }) => imageName,
  DaemonName: () => 'docker',
  Hostname: () => hostname(),
  Command: ({ command }) => command.join(' '),
};

const placeholder = /\{\{-?\s*(?:\.(\w+)|index\s+\.ContainerLabels\s+"([^"]*)")\s*-?\}\}/g;

/** @throws EngineError `invalidArgument` for a template that `renderTag` could not fill in. */
export function checkTag(template: string): void {
  for (const [, name] of template.matchAll(placeholder)) {
    if (name !== undefined && fields[name] === undefined) {
      throw invalidArgument(`template: log-tag: can't evaluate field ${name} in type logger.Info`);
    }
  }
  const rest = template.replace(placeholder, '');
  if (rest.includes('{{')) {
    throw invalidArgument(
      `template: log-tag: unsupported action in ${JSON.stringify(template)}: fields and index .ContainerLabels only`,
    );
  }
}

export function renderTag(template: string, container: LoggedContainer): string {
  return template.replace(placeholder, (_, name: string | undefined, label: string | undefined) =>
    name === undefined ? (container.labels[label ?? ''] ?? '') : (fields[name]?.(container) ?? ''),
  );
}

/** @throws EngineError `invalidArgument`. */
export function checkAttributeOptions(options: Options): void {
  if (options['tag'] !== undefined) checkTag(options['tag']);
  for (const key of ['labels-regex', 'env-regex']) {
    const pattern = options[key];
    if (pattern !== undefined) compile(pattern);
  }
}

/** Labels and variables that the options name, with `rename` applied to their names. */
export function logAttributes(
  options: Options,
  container: LoggedContainer,
  rename: (name: string) => string = (name) => name,
): Record<string, string> {
  const env = new Map<string, string>();
  for (const entry of container.env) {
    const at = entry.indexOf('=');
    if (at >= 0) env.set(entry.slice(0, at), entry.slice(at + 1));
  }
  const labels = new Map(Object.entries(container.labels));
  const chosen = [
    ...choose(labels, options['labels'], options['labels-regex']),
    ...choose(env, options['env'], options['env-regex']),
  ];
  return Object.fromEntries(chosen.map(([name, value]) => [rename(name), value]));
}

function* choose(
  from: ReadonlyMap<string, string>,
  names: string | undefined,
  pattern: string | undefined,
): Generator<[string, string]> {
  for (const name of (names ?? '').split(',')) {
    const value = from.get(name);
    if (value !== undefined) yield [name, value];
  }
  if (pattern === undefined || pattern === '') return;
  const expression = compile(pattern);
  for (const entry of from) if (expression.test(entry[0])) yield entry;
}

/** Go's expressions have neither look-around nor back-references, with which matching could take for ever. */
function compile(pattern: string): RegExp {
  try {
    if (/\(\?[=!<]|\\[1-9]/.test(pattern)) throw new Error('invalid or unsupported Perl syntax');
    return new RegExp(pattern);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw invalidArgument(`error parsing regexp: ${reason}: \`${pattern}\``, { cause });
  }
}
