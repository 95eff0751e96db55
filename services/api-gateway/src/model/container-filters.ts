import { booleanFilter, invalidFilterValue, matchLabels } from '@flotilla/docker-api';
import type { Filters } from '@flotilla/docker-api';
import { invalidArgument } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import { isRunning, statusName } from '../shapes/container-state.js';
import { portMap } from '../shapes/container-network.js';
import { newestFirst } from './container-list.js';

/** Keys that `GET /containers/json` knows. */
export const containerFilterKeys: ReadonlySet<string> = new Set([
  'ancestor',
  'before',
  'exited',
  'expose',
  'health',
  'id',
  'is-task',
  'isolation',
  'label',
  'label!',
  'name',
  'network',
  'publish',
  'since',
  'status',
  'volume',
]);

const STATES = new Set(['created', 'dead', 'exited', 'paused', 'removing', 'restarting', 'running']);
const HEALTH = new Set(['healthy', 'none', 'starting', 'unhealthy']);

type Container = container.Container;
type Test = (object: Container) => boolean;

/** What a query for containers asks. */
export interface ContainerQuery {
  readonly filters: Filters;
  readonly all: boolean;
  /** At most so many, the newest, running or not; 0 for no limit. */
  readonly limit: number;
}

/** How a query looks other objects up. */
export interface ContainerQueryContext {
  /** @throws EngineError when there is no such container */
  readonly container: (name: string) => Container;
  /** Ids of the image and of all images made from it; empty when there is none. */
  readonly imageFamily: (name: string) => ReadonlySet<string>;
}

/**
 * Choose containers, newest first.
 * @throws EngineError `invalidArgument` for values that a filter does not take; `notFound` for an unknown `before` or `since`
 */
export function selectContainers(
  objects: Iterable<Container>,
  query: ContainerQuery,
  context: ContainerQueryContext,
): Container[] {
  const { filters, limit } = query;
  const all = query.all || limit > 0 || (filters.get('status')?.length ?? 0) > 0;
  const tests = filterTests(filters, context);
  const chosen = [...objects].filter(
    (object) => (all || isRunning(object.state?.status ?? 0)) && tests.every((test) => test(object)),
  );
  chosen.sort(newestFirst);
  return limit > 0 ? chosen.slice(0, limit) : chosen;
}

function filterTests(filters: Filters, context: ContainerQueryContext): Test[] {
  const tests: Test[] = [];
  const on = (key: string, make: (values: readonly string[]) => Test): void => {
    const values = filters.get(key);
    if (values !== undefined && values.length > 0) tests.push(make(values));
  };
  on('id', (values) => {
    const match = anyPattern(values);
    return ({ id }) => match(id);
  });
  on('name', (values) => {
    const match = anyPattern(values);
    return ({ name }) => match(name) || match(`/${name}`);
  });
  on('label', (values) => (object) => matchLabels(values, labelsOf(object)));
  on('label!', (values) => (object) => !values.some((value) => matchLabels([value], labelsOf(object))));
  on('status', (values) => {
    for (const value of values) if (!STATES.has(value)) throw invalidArgument(`invalid filter 'status=${value}'`);
    return ({ state }) => values.includes(statusName(state?.status ?? 0));
  });
  on('health', (values) => {
    for (const value of values)
      if (!HEALTH.has(value)) throw invalidArgument(`unrecognized filter value for health: ${value}`);
    return ({ state }) => values.includes(state?.health?.status ?? 'none');
  });
  on('exited', (values) => {
    const codes = values.map((value) => {
      if (!/^-?\d+$/.test(value)) throw invalidFilterValue('exited', values);
      return Number(value);
    });
    return ({ state }) => state?.startedAt !== undefined && !isRunning(state.status) && codes.includes(state.exitCode);
  });
  on(
    'volume',
    (values) =>
      ({ mounts }) =>
        mounts.some((mount) => values.includes(mount.name) || values.includes(mount.destination)),
  );
  on(
    'network',
    (values) =>
      ({ networkSettings }) =>
        (networkSettings?.networks ?? []).some(({ network, networkId }) =>
          values.some((value) => value === network || (value !== '' && networkId.startsWith(value))),
        ),
  );
  on('before', (values) => {
    const bounds = values.map(context.container);
    return (object) => bounds.every((bound) => newestFirst(object, bound) > 0);
  });
  on('since', (values) => {
    const bounds = values.map(context.container);
    return (object) => bounds.every((bound) => newestFirst(object, bound) < 0);
  });
  on('ancestor', (values) => {
    const families = values.map(context.imageFamily);
    return ({ imageId }) => families.some((family) => family.has(imageId));
  });
  on('publish', (values) => portTest(values, (object) => publishedPorts(object)));
  on('expose', (values) => portTest(values, (object) => object.config?.exposedPorts ?? []));
  on('is-task', () => {
    const wanted = booleanFilter(filters, 'is-task');
    // There are no swarm tasks here.
    return () => wanted === false;
  });
  return tests;
}

const labelsOf = (object: Container): Readonly<Record<string, string>> => object.config?.labels ?? {};

/** Values match as they are or as regular expressions, as in dockerd. */
function anyPattern(values: readonly string[]): (text: string) => boolean {
  const patterns = values.map((value) => {
    try {
      return new RegExp(value);
    } catch {
      return undefined;
    }
  });
  return (text) => values.includes(text) || patterns.some((pattern) => pattern?.test(text) === true);
}

/** Ports of the container that are published, and the host's ports that lead to them. */
function publishedPorts(object: Container): string[] {
  return Object.entries(portMap(object)).flatMap(([port, bindings]) => (bindings === null ? [] : [port]));
}

function portTest(values: readonly string[], portsOf: (object: Container) => readonly string[]): Test {
  const wanted = new Set<string>();
  for (const value of values) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/.exec(value);
    const from = Number(match?.[1] ?? 0);
    const to = Number(match?.[2] ?? from);
    if (match === null || from > to || to > 65_535)
      throw invalidArgument(`invalid filter 'publish=${value}': invalid port`);
    for (let port = from; port <= to; port++) wanted.add(`${port}/${match[3] ?? 'tcp'}`);
  }
  return (object) => portsOf(object).some((port) => wanted.has(port));
}
