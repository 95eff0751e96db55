import { internal, invalidArgument, notFound } from '@flotilla/errors';
import type { HostsLine } from '../rootfs/etc-files.js';
import { type ContainerRecord, type ShownContainer, stateOf } from '../store/container-record.js';
import { linkEnvironment } from './link-environment.js';
import { type Link, parseLink } from './link-plan.js';
import { isLive } from './state.js';

/** What links are looked up in. */
export interface LinkedRecords {
  get(id: string): ContainerRecord | undefined;
  /** @throws EngineError `notFound` */
  resolve(name: string): ContainerRecord;
}

const bridge = 'bridge';

/**
 * The links of `--link name[:alias]`; of two with one alias the first counts.
 *
 * @throws EngineError `invalidArgument` in dockerd's words
 */
export function planLinks(records: LinkedRecords, wanted: readonly string[]): Link[] {
  const links: Link[] = [];
  for (const text of wanted) {
    const { name, alias } = parseLink(text);
    const { id, hostConfig } = linkedContainer(records, name);
    if (hostConfig.networkMode === 'host') {
      throw invalidArgument(
        "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
      );
    }
    if (!links.some((link) => link.alias === alias)) links.push({ id, alias });
  }
  return links;
}

/** `HostConfig.Links` as inspect shows it. */
export function shownLinks(records: LinkedRecords, ownName: string, links: readonly Link[]): string[] {
  return links.flatMap(({ id, alias }) => {
    const other = records.get(id);
    return other === undefined ? [] : [`/${other.container.name}:/${ownName}/${alias}`];
  });
}

/** The containers behind the links of one, with what it is told about them. */
export interface Linked {
  /** For /etc/hosts, one line per link. */
  hosts: HostsLine[];
  environment: string[];
}

/**
 * What the links of a container say when it starts. Containers that are gone are left out; one that is not on the default bridge itself is told
 * nothing.
 *
 * @throws EngineError `internal` in dockerd's words for a container that does not run, or is not on the default bridge
 */
export function linkedAtStart(records: LinkedRecords, record: LinkingRecord): Linked {
  return tellLinks(records, record, (error) => {
    throw error;
  });
}

/** As `linkedAtStart`, of the containers that can be reached now. */
export function linkedNow(records: LinkedRecords, record: LinkingRecord): Linked {
  return tellLinks(records, record, () => undefined);
}

type LinkingRecord = Pick<ContainerRecord, 'container' | 'internals'>;

function tellLinks(
  records: LinkedRecords,
  { container, internals }: LinkingRecord,
  refuse: (error: Error) => void,
): Linked {
  if (!isOnBridge(container)) return { hosts: [], environment: [] };
  const others = (internals.links ?? []).flatMap(({ id, alias }) => {
    const record = records.get(id);
    if (record === undefined) return [];
    const other = record.container;
    const address = bridgeAddress(other);
    if (!isOnBridge(other)) {
      refuse(internal(`Cannot link to /${other.name}, as it does not belong to the default network`));
    } else if (!isLive(stateOf(record)) || address === undefined) {
      refuse(internal(`Cannot link to a non running container: /${other.name} AS /${container.name}/${alias}`));
    } else return [{ other, alias, address }];
    return [];
  });
  return {
    hosts: others.map(({ other, alias, address }) => ({
      address,
      names: [...new Set([alias, other.config.hostname, other.name])].filter((name) => name !== ''),
    })),
    environment: others.flatMap(({ other, alias, address }) =>
      linkEnvironment(`/${container.name}/${alias}`, address, other.config),
    ),
  };
}

function isOnBridge({ networkSettings }: ShownContainer): boolean {
  return networkSettings.networks.some(({ network }) => network === bridge);
}

/** Address of a container on the default bridge while it runs. */
export function bridgeAddress({ networkSettings }: ShownContainer): string | undefined {
  const settings = networkSettings.networks.find(({ network }) => network === bridge);
  return settings?.endpoint?.ipv4Address;
}

/** Who shares another's network is linked as that one. */
function linkedContainer(records: LinkedRecords, name: string): ShownContainer {
  let wanted = name;
  const seen = new Set<string>();
  for (;;) {
    const record = found(records, wanted);
    const { network } = record.internals;
    if (network.kind !== 'container' || seen.has(record.container.id)) return record.container;
    seen.add(record.container.id);
    wanted = network.target;
  }
}

function found(records: LinkedRecords, name: string): ContainerRecord {
  try {
    return records.resolve(name);
  } catch (cause) {
    // Not 404: at create that means a missing image.
    const { message } = cause instanceof Error ? cause : notFound(`No such container: ${name}`);
    throw invalidArgument(`could not get container for ${name}: ${message}`, { cause });
  }
}
