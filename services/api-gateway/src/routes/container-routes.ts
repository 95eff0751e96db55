import {
  apiVersion,
  booleanValue,
  booleanValueOr,
  integerValue,
  parseFilters,
  parseTimestamp,
} from '@flotilla/docker-api';
import type { ContainerCreated } from '@flotilla/docker-api';
import { invalidArgument, isEngineError, notFound } from '@flotilla/errors';
import { parsePlatform } from '@flotilla/oci';
import { container as proto, timestampFromNs } from '@flotilla/proto';
import type { common, container } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import type { Route } from '../http/route-table.js';
import { commitBody, createBody, updateBody } from '../json/container-bodies.js';
import { containerFilterKeys, selectContainers } from '../model/container-filters.js';
import { containerInspect } from '../shapes/container.js';
import { containerConfig, createContainerRequest, resources } from '../shapes/container-create.js';
import { waitForContainer } from './container-wait.js';
import { archiveDownload } from './archive-transfer.js';
import { BULK_MS, SLOW_MS, changing, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';
import { nowNs, pruneSelection } from './prune-filters.js';
import { resumed } from './resumed-stream.js';

/** Grace beyond a stop's own timeout. */
const STOP_GRACE_MS = 60_000;
const FOR_EVER_MS = 24 * 3_600_000;
const SIZE_CALLS_AT_ONCE = 8;

/** The endpoints of containers that are no raw streams. */
export function containerRoutes(context: GatewayContext): Route[] {
  const { peers, model, exchangeDir } = context;
  const settle = (revision: bigint): Promise<void> => model.containers.reached(revision);
  const v = apiVersion;

  return [
    { method: 'GET', path: '/containers/json', handler: (call) => list(context, call) },
    { method: 'POST', path: '/containers/create', handler: (call) => create(context, call) },
    { method: 'GET', path: '/containers/{id}/json', handler: (call) => inspect(context, call) },
    {
      method: 'POST',
      path: '/containers/{id}/start',
      handler: async (call) => {
        if (Number(call.req.headers['content-length'] ?? 0) > 2) {
          throw invalidArgument(
            'starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24',
          );
        }
        checkDetachKeys(call.query.get('detachKeys'));
        const { outcome, revision } = await peers.container.startContainer(
          {
            name: call.param('id'),
            checkpoint: call.query.get('checkpoint') ?? '',
            checkpointDir: call.query.get('checkpoint-dir') ?? '',
          },
          changing(call),
        );
        await settle(revision);
        call.empty(outcome === proto.StartOutcome.ALREADY_STARTED ? 304 : 204);
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/stop',
      handler: async (call) => {
        const timeoutSeconds = integerValue(call.query.get('t'));
        const { outcome, revision } = await peers.container.stopContainer(
          { name: call.param('id'), signal: signalOf(call), timeoutSeconds },
          changing(call, stopDeadline(timeoutSeconds)),
        );
        await settle(revision);
        call.empty(outcome === proto.StopOutcome.ALREADY_STOPPED ? 304 : 204);
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/restart',
      handler: async (call) => {
        const timeoutSeconds = integerValue(call.query.get('t'));
        const { revision } = await peers.container.restartContainer(
          { name: call.param('id'), signal: signalOf(call), timeoutSeconds },
          changing(call, stopDeadline(timeoutSeconds)),
        );
        await settle(revision);
        call.empty(204);
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/kill',
      handler: async (call) => {
        const { revision } = await peers.container.killContainer(
          { name: call.param('id'), signal: call.query.get('signal') ?? '' },
          changing(call),
        );
        await settle(revision);
        call.empty(204);
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/pause',
      handler: async (call) => {
        const { revision } = await peers.container.pauseContainer({ name: call.param('id') }, changing(call));
        await settle(revision);
        call.empty(204);
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/unpause',
      handler: async (call) => {
        const { revision } = await peers.container.unpauseContainer({ name: call.param('id') }, changing(call));
        await settle(revision);
        call.empty(204);
      },
    },
    { method: 'POST', path: '/containers/{id}/wait', handler: (call) => waitForContainer(context, call) },
    { method: 'DELETE', path: '/containers/{id}', handler: (call) => remove(context, call, call.param('id')) },
    // A link, by the name of the container that has it and its alias.
    {
      method: 'DELETE',
      path: '/containers/{id}/{alias}',
      handler: (call) => remove(context, call, `${call.param('id')}/${call.param('alias')}`),
    },
    {
      method: 'POST',
      path: '/containers/{id}/rename',
      handler: async (call) => {
        const { revision } = await peers.container.renameContainer(
          { name: call.param('id'), newName: call.query.get('name') ?? '' },
          changing(call),
        );
        await settle(revision);
        call.empty(204);
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/update',
      handler: async (call) => {
        const body = (await call.readJson(updateBody)) ?? {};
        const { RestartPolicy } = body;
        const { warnings, revision } = await peers.container.updateContainer(
          {
            name: call.param('id'),
            resources: resources(body),
            restartPolicy:
              RestartPolicy === undefined
                ? undefined
                : { name: RestartPolicy.Name ?? '', maximumRetryCount: RestartPolicy.MaximumRetryCount ?? 0 },
          },
          changing(call),
        );
        await settle(revision);
        call.json(200, { Warnings: warnings });
      },
    },
    {
      method: 'POST',
      path: '/containers/{id}/resize',
      handler: async (call) => {
        await peers.container.resizeContainer({ name: call.param('id'), ...terminalSize(call) }, reading(call));
        call.empty(200);
      },
    },
    {
      method: 'GET',
      path: '/containers/{id}/top',
      handler: async (call) => {
        const { titles, processes } = await peers.container.listProcesses(
          { name: call.param('id'), psArgs: call.query.get('ps_args') ?? '' },
          reading(call),
        );
        call.json(200, { Processes: processes.map(({ values }) => values), Titles: titles });
      },
    },
    { method: 'GET', path: '/containers/{id}/stats', handler: (call) => stats(context, call) },
    {
      method: 'GET',
      path: '/containers/{id}/changes',
      handler: async (call) => {
        const shapes: { Path: string; Kind: number }[] = [];
        const batches = peers.container.listChanges({ name: call.param('id') }, { signal: call.signal });
        for await (const { changes } of batches) {
          // Docker counts modified 0, added 1, deleted 2; the contract one more.
          for (const { path, kind } of changes) shapes.push({ Path: path, Kind: kind - 1 });
        }
        call.json(200, shapes);
      },
    },
    {
      method: 'GET',
      path: '/containers/{id}/export',
      handler: (call) =>
        call.stream(
          'application/octet-stream',
          archiveDownload(exchangeDir, call.signal, (exchangeName) =>
            peers.container.exportContainer({ name: call.param('id'), exchangeName }, { signal: call.signal }),
          ),
        ),
    },
    {
      method: 'POST',
      path: '/containers/prune',
      since: v(1, 25),
      handler: async (call) => {
        const { until, labels, excludedLabels } = pruneSelection(call, ['until']);
        const { removed, reclaimedBytes, revision } = await peers.container.pruneContainers(
          { until, labels, excludedLabels },
          changing(call, BULK_MS),
        );
        await settle(revision);
        call.json(200, { ContainersDeleted: removed, SpaceReclaimed: Number(reclaimedBytes) });
      },
    },
    { method: 'POST', path: '/commit', handler: (call) => commit(context, call) },
    { method: 'GET', path: '/containers/{id}/logs', handler: (call) => logs(context, call) },
  ];
}

const signalOf = (call: ApiCall): string => (call.version < apiVersion(1, 42) ? '' : (call.query.get('signal') ?? ''));

const stopDeadline = (seconds: number | undefined): number =>
  seconds === undefined || seconds < 0 ? FOR_EVER_MS : Math.min(seconds * 1000 + STOP_GRACE_MS, FOR_EVER_MS);

function checkDetachKeys(keys: string | null): void {
  if (keys !== null && keys.length > 256) throw invalidArgument(`Invalid detach keys (${keys}) provided`);
}

/** Height and width of the query. @throws EngineError `invalidArgument` when one is no number */
export function terminalSize(call: ApiCall): { height: number; width: number } {
  const read = (key: string): number => {
    const value = call.query.get(key) ?? '';
    if (!/^\d{1,9}$/.test(value))
      throw invalidArgument(`invalid resize ${key === 'h' ? 'height' : 'width'} "${value}": invalid syntax`);
    return Number(value);
  };
  return { height: read('h'), width: read('w') };
}

/** `os/arch/variant` of the query. */
export function platformOf(text: string | null): common.Platform | undefined {
  if (text === null || text === '') return undefined;
  const { os, architecture, variant } = parsePlatform(text);
  return { os, architecture, variant, osVersion: '', osFeatures: [] };
}

async function remove({ peers, model }: GatewayContext, call: ApiCall, name: string): Promise<void> {
  const { revision } = await peers.container.removeContainer(
    {
      name,
      force: booleanValue(call.query.get('force')),
      volumes: booleanValue(call.query.get('v')),
      link: booleanValue(call.query.get('link')),
    },
    changing(call),
  );
  await model.containers.reached(revision);
  call.empty(204);
}

async function list({ model, peers }: GatewayContext, call: ApiCall): Promise<void> {
  const { query, version } = call;
  const isPlain = !call.hasQuery || (!query.has('filters') && !query.has('size') && !query.has('limit'));
  if (isPlain) {
    const body = model.containerListBody(booleanValue(query.get('all')), version);
    if (body !== undefined) {
      call.send(200, body);
      return;
    }
  }
  const filters = parseFilters(query.get('filters'), containerFilterKeys);
  const limit = Math.max(0, integerValue(query.get('limit')) ?? 0);
  const objects = await model.listContainers();
  const chosen = selectContainers(
    objects,
    { filters, all: booleanValue(query.get('all')), limit },
    lookups(model, objects),
  );
  const sizes = booleanValue(query.get('size')) ? await containerSizes(peers, chosen, call) : undefined;
  call.send(200, model.listRenderer.render(chosen, version, Date.now(), sizes).body);
}

function lookups(
  model: GatewayContext['model'],
  objects: readonly container.Container[],
): Parameters<typeof selectContainers>[2] {
  return {
    container: (name) => {
      const wanted = name.startsWith('/') ? name.slice(1) : name;
      const found =
        objects.find(({ id, name: own }) => id === wanted || own === wanted) ??
        objects.find(({ id }) => wanted !== '' && id.startsWith(wanted));
      if (found === undefined) throw notFound(`No such container: ${name}`);
      return found;
    },
    imageFamily: (name) => {
      const root = model.imageIndex.find(name);
      const family = new Set<string>(root === undefined ? [] : [root.id]);
      for (let size = -1; size !== family.size;) {
        size = family.size;
        for (const { id, parentId } of model.images.objects.values()) if (family.has(parentId)) family.add(id);
      }
      return family;
    },
  };
}

/** Bytes of writable layers and root file systems, a few owners' calls at a time. */
export async function containerSizes(
  peers: GatewayContext['peers'],
  objects: readonly container.Container[],
  call: ApiCall,
): Promise<Map<string, { sizeRw: number; sizeRootFs: number }>> {
  const sizes = new Map<string, { sizeRw: number; sizeRootFs: number }>();
  const queue = [...objects];
  const work = async (): Promise<void> => {
    for (let object = queue.shift(); object !== undefined; object = queue.shift()) {
      try {
        const { sizeRwBytes, sizeRootFsBytes } = await peers.container.getContainer(
          { name: object.id, size: true },
          reading(call, BULK_MS),
        );
        sizes.set(object.id, { sizeRw: Number(sizeRwBytes), sizeRootFs: Number(sizeRootFsBytes) });
      } catch (error) {
        // Removed meanwhile: it has no size.
        if (!isEngineError(error, 'notFound')) throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: SIZE_CALLS_AT_ONCE }, work));
  return sizes;
}

async function create({ peers, model }: GatewayContext, call: ApiCall): Promise<void> {
  const body = await call.requireJson(createBody);
  const platform = call.version < apiVersion(1, 41) ? undefined : platformOf(call.query.get('platform'));
  const request = createContainerRequest(call.query.get('name') ?? '', platform, body, call.version);
  const { id, warnings, revision } = await peers.container.createContainer(request, changing(call));
  await model.containers.reached(revision);
  const reply: ContainerCreated = { Id: id, Warnings: warnings };
  call.json(201, reply);
}

function inspect({ model, peers }: GatewayContext, call: ApiCall): Promise<void> | void {
  const name = call.param('id');
  if (!call.hasQuery || !booleanValue(call.query.get('size'))) {
    const object = model.findContainer(name);
    if (object !== undefined) {
      call.send(200, model.containerBody(object, call.version));
      return undefined;
    }
  }
  return inspectByOwner(peers, call, name);
}

async function inspectByOwner(peers: GatewayContext['peers'], call: ApiCall, name: string): Promise<void> {
  const size = booleanValue(call.query.get('size'));
  const reply = await peers.container.getContainer({ name, size }, reading(call, SLOW_MS));
  if (reply.container === undefined) throw notFound(`No such container: ${name}`);
  const shape = containerInspect.render(reply.container, call.version);
  if (size) {
    shape.SizeRw = Number(reply.sizeRwBytes);
    shape.SizeRootFs = Number(reply.sizeRootFsBytes);
  }
  call.json(200, shape);
}

async function stats({ peers }: GatewayContext, call: ApiCall): Promise<void> {
  const stream = booleanValueOr(call.query.get('stream'), true);
  const oneShot = call.version >= apiVersion(1, 41) && booleanValue(call.query.get('one-shot'));
  if (stream && oneShot) throw invalidArgument('cannot have stream=true and one-shot=true');
  let hasBegun = false;
  for await (const { statsJson } of peers.container.streamStats(
    { name: call.param('id'), stream, oneShot },
    { signal: call.signal },
  )) {
    if (!hasBegun) call.startBody(200, 'application/json');
    hasBegun = true;
    await call.write(`${statsJson}\n`);
  }
  call.end();
}

async function commit({ peers, model }: GatewayContext, call: ApiCall): Promise<void> {
  const { query } = call;
  const body = await call.readJson(commitBody);
  const { imageId, imageRevision } = await peers.container.commitContainer(
    {
      name: query.get('container') ?? '',
      repository: query.get('repo') ?? '',
      tag: query.get('tag') ?? '',
      comment: query.get('comment') ?? '',
      author: query.get('author') ?? '',
      pause: booleanValueOr(query.get('pause'), true),
      changes: query
        .getAll('changes')
        .flatMap((text) => text.split('\n'))
        .filter((line) => line !== ''),
      config: body === undefined ? undefined : containerConfig(body),
    },
    changing(call, BULK_MS),
  );
  await model.images.reached(imageRevision);
  call.json(201, { Id: imageId });
}

async function logs({ peers }: GatewayContext, call: ApiCall): Promise<void> {
  const { query } = call;
  const stdout = booleanValue(query.get('stdout'));
  const stderr = booleanValue(query.get('stderr'));
  if (!stdout && !stderr) throw invalidArgument('Bad parameters: you must choose at least one stream');
  const now = nowNs();
  const time = (key: string): bigint | undefined => {
    const value = parseTimestamp(query.get(key), now);
    return value === undefined || value <= 0n ? undefined : value;
  };
  const since = time('since');
  const until = call.version < apiVersion(1, 35) ? undefined : time('until');
  const tail = query.get('tail') ?? '';
  let position = '';
  let name = call.param('id');
  const open = (): AsyncIterable<container.StreamLogsResponse> =>
    peers.container.streamLogs(
      {
        name,
        stdout,
        stderr,
        follow: booleanValue(query.get('follow')),
        timestamps: booleanValue(query.get('timestamps')),
        details: booleanValue(query.get('details')),
        since: since === undefined ? undefined : timestampFromNs(since),
        until: until === undefined ? undefined : timestampFromNs(until),
        // What is not a number means all, as in dockerd.
        tail: /^\d{1,18}$/.test(tail) ? BigInt(tail) : undefined,
        position,
      },
      { signal: call.signal },
    );
  for await (const { output, position: next, attached } of resumed(open, call.signal)) {
    if (attached !== undefined) {
      name = attached.containerId;
      if (!call.res.headersSent) call.startBody(200, streamContentType(call, attached.tty));
    }
    if (!call.res.headersSent) call.startBody(200, streamContentType(call, false));
    if (output.length > 0) await call.write(output);
    if (next !== '') position = next;
  }
  if (!call.res.headersSent) call.startBody(200, streamContentType(call, false));
  call.end();
}

/** The content type of container output: multiplexed frames say so since 1.42. */
export const streamContentType = (call: ApiCall, tty: boolean): string =>
  !tty && call.version >= apiVersion(1, 42)
    ? 'application/vnd.docker.multiplexed-stream'
    : 'application/vnd.docker.raw-stream';
