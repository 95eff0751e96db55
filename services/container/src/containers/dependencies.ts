import type { ContainerRecord } from '../store/container-record.js';

/** Of each container, by id, the ones that must run before it. Ids that are not among the records do not occur. */
export type Dependencies = ReadonlyMap<string, ReadonlySet<string>>;

const projectLabel = 'com.docker.compose.project';
const serviceLabel = 'com.docker.compose.service';
const dependsOnLabel = 'com.docker.compose.depends_on';

/**
 * Who needs whom: by links, shared network, pid and ipc namespaces, `--volumes-from`, and compose's labels. Names that mean nobody any more are
 * left out, and so is the last step of every circle: the result has none.
 */
export function dependenciesAmong(records: readonly ContainerRecord[]): Dependencies {
  const ids = new Map<string, string>();
  const services = new Map<string, string[]>();
  for (const { container } of records) ids.set(container.name, container.id);
  for (const { container } of records) {
    ids.set(container.id, container.id);
    const service = composeService(container.config.labels, container.config.labels[serviceLabel]);
    if (service !== undefined) services.set(service, [...(services.get(service) ?? []), container.id]);
  }
  const wanted = new Map<string, Set<string>>();
  for (const record of records) {
    const { id, config } = record.container;
    const named = namesOf(record).flatMap((name) => idOf(name, ids) ?? []);
    const composed = composeNames(config.labels).flatMap((name) => services.get(name) ?? []);
    wanted.set(id, new Set([...named, ...composed].filter((other) => other !== id)));
  }
  return withoutCircles(wanted);
}

/** The other way round: who must be stopped before each. */
export function dependentsIn(dependencies: Dependencies): Dependencies {
  const dependents = new Map([...dependencies.keys()].map((id) => [id, new Set<string>()]));
  for (const [id, needs] of dependencies) for (const needed of needs) dependents.get(needed)?.add(id);
  return dependents;
}

function namesOf({ container, internals }: ContainerRecord): string[] {
  const { hostConfig } = container;
  const { network } = internals;
  const links = [
    ...hostConfig.links,
    ...(network.kind === 'networks' ? network.endpoints.flatMap((endpoint) => endpoint.links) : []),
  ];
  const shared = [hostConfig.pidMode, hostConfig.ipcMode].filter((mode) => mode.startsWith('container:'));
  return [
    ...links.map((link) => link.split(':')[0] ?? ''),
    ...shared.map((mode) => mode.slice('container:'.length)),
    ...(network.kind === 'container' ? [network.target] : []),
    ...hostConfig.volumesFrom.map((from) => from.split(':')[0] ?? ''),
  ];
}

function idOf(name: string, ids: ReadonlyMap<string, string>): string | undefined {
  const bare = name.replace(/^\//, '');
  const exact = ids.get(bare);
  if (exact !== undefined || !/^[0-9a-f]{1,63}$/.test(bare)) return exact;
  const matches = new Set([...ids.values()].filter((id) => id.startsWith(bare)));
  return matches.size === 1 ? [...matches][0] : undefined;
}

/** `db:service_started:false,cache:service_healthy:true`, as compose writes it. */
function composeNames(labels: Readonly<Record<string, string>>): string[] {
  const needs = (labels[dependsOnLabel] ?? '').split(',').map((entry) => entry.trim().split(':')[0]);
  return needs.flatMap((service) => composeService(labels, service) ?? []);
}

function composeService(labels: Readonly<Record<string, string>>, service: string | undefined): string | undefined {
  const project = labels[projectLabel];
  return project === undefined || service === undefined || service === '' ? undefined : `${project}/${service}`;
}

/** Depth first without recursion: a chain may be as long as there are containers. */
function withoutCircles(wanted: ReadonlyMap<string, ReadonlySet<string>>): Dependencies {
  const kept = new Map([...wanted.keys()].map((id) => [id, new Set<string>()]));
  const state = new Map<string, 'open' | 'done'>();
  for (const root of wanted.keys()) {
    if (state.has(root)) continue;
    state.set(root, 'open');
    const path = [{ id: root, rest: [...(wanted.get(root) ?? [])] }];
    for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
      const next = top.rest.shift();
      if (next === undefined) {
        state.set(top.id, 'done');
        path.pop();
        continue;
      }
      if (state.get(next) === 'open') continue;
      kept.get(top.id)?.add(next);
      if (state.has(next)) continue;
      state.set(next, 'open');
      path.push({ id: next, rest: [...(wanted.get(next) ?? [])] });
    }
  }
  return kept;
}
