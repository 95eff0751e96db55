import { apiVersion, matchLabels, parseFilters } from '@flotilla/docker-api';
import type { Filters } from '@flotilla/docker-api';
import { invalidArgument, notFound } from '@flotilla/errors';
import type { network } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import type { Route } from '../http/route-table.js';
import { endpointSettings } from '../json/container-bodies.js';
import { arrayOf, boolean, string, stringMap, struct } from '../json/decoders.js';
import { endpointRequest } from '../shapes/container-create.js';
import { networkInspect, networkSummary } from '../shapes/network.js';
import { changing, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';
import { pruneSelection } from './prune-filters.js';
import { namePattern } from './volume-routes.js';

const createBody = struct('CreateRequest', {
  Name: string,
  CheckDuplicate: boolean,
  Driver: string,
  Scope: string,
  EnableIPv4: boolean,
  EnableIPv6: boolean,
  IPAM: struct('IPAM', {
    Driver: string,
    Options: stringMap,
    Config: arrayOf(
      struct('IPAMConfig', { Subnet: string, IPRange: string, Gateway: string, AuxiliaryAddresses: stringMap }),
      '[]network.IPAMConfig',
    ),
  }),
  Internal: boolean,
  Attachable: boolean,
  Ingress: boolean,
  ConfigOnly: boolean,
  ConfigFrom: struct('ConfigReference', { Network: string }),
  Options: stringMap,
  Labels: stringMap,
});
const connectBody = struct('ConnectOptions', { Container: string, EndpointConfig: endpointSettings });
const disconnectBody = struct('DisconnectOptions', { Container: string, Force: boolean });

const filterKeys: ReadonlySet<string> = new Set(['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type']);

/** The endpoints of networks. */
export function networkRoutes(context: GatewayContext): Route[] {
  const { peers, model } = context;
  const settle = (revision: bigint): Promise<void> => model.networks.reached(revision);
  const listHandler = (call: ApiCall): Promise<void> => list(context, call);
  return [
    { method: 'GET', path: '/networks', handler: listHandler },
    { method: 'GET', path: '/networks/', handler: listHandler },
    { method: 'POST', path: '/networks/create', handler: (call) => create(context, call) },
    {
      method: 'POST',
      path: '/networks/prune',
      since: apiVersion(1, 25),
      handler: async (call) => {
        const { until, labels, excludedLabels } = pruneSelection(call, ['until']);
        const { removed, revision } = await peers.network.pruneNetworks(
          { until, labels, excludedLabels },
          changing(call),
        );
        await settle(revision);
        call.json(200, { NetworksDeleted: removed });
      },
    },
    { method: 'GET', path: '/networks/{id}', handler: (call) => inspect(context, call) },
    {
      method: 'DELETE',
      path: '/networks/{id}',
      handler: async (call) => {
        const { revision } = await peers.network.removeNetwork({ name: call.param('id') }, changing(call));
        await settle(revision);
        call.empty(204);
      },
    },
    {
      method: 'POST',
      path: '/networks/{id}/connect',
      handler: async (call) => {
        const body = (await call.requireJson(connectBody)) ?? {};
        const { revision } = await peers.container.connectNetwork(
          { container: requireContainer(body), endpoint: endpointRequest(call.param('id'), body.EndpointConfig ?? {}) },
          changing(call),
        );
        await model.containers.reached(revision);
        call.empty(200);
      },
    },
    {
      method: 'POST',
      path: '/networks/{id}/disconnect',
      handler: async (call) => {
        const body = (await call.requireJson(disconnectBody)) ?? {};
        const { revision } = await peers.container.disconnectNetwork(
          { container: requireContainer(body), network: call.param('id'), force: body.Force ?? false },
          changing(call),
        );
        await model.containers.reached(revision);
        call.empty(200);
      },
    },
  ];
}

async function list({ model }: GatewayContext, call: ApiCall): Promise<void> {
  const filters = parseFilters(call.query.get('filters'), filterKeys);
  const matches = networkTest(filters);
  const chosen = (await model.listNetworks()).filter(matches);
  call.json(
    200,
    chosen.map((object) => networkSummary.render(object, call.version)),
  );
}

function networkTest(filters: Filters): (object: network.Network) => boolean {
  const dangling = danglingFilter(filters);
  const types = filters.get('type') ?? [];
  for (const type of types)
    if (type !== 'custom' && type !== 'builtin') throw invalidArgument(`invalid filter: 'type'='${type}'`);
  const anyOf = (values: readonly string[] | undefined, match: (value: string) => boolean): boolean =>
    values === undefined || values.length === 0 || values.some(match);
  const names = filters.get('name')?.map(namePattern) ?? [];
  const ids = filters.get('id')?.map(namePattern) ?? [];
  return (object) =>
    (dangling === undefined || dangling === (!object.predefined && object.endpoints.length === 0)) &&
    anyOf(filters.get('driver'), (value) => object.driver === value) &&
    (ids.length === 0 || ids.some((match) => match(object.id))) &&
    (names.length === 0 || names.some((match) => match(object.name))) &&
    matchLabels(filters.get('label'), object.labels) &&
    anyOf(types, (type) => (type === 'builtin') === object.predefined) &&
    anyOf(filters.get('scope'), (scope) => (object.scope === '' ? 'local' : object.scope) === scope);
}

/** dockerd has words of its own for this filter of networks. */
function danglingFilter(filters: Filters): boolean | undefined {
  const values = filters.get('dangling') ?? [];
  if (values.length > 1) throw invalidArgument('got more than one value for filter key "dangling"');
  const [value] = values;
  if (value === undefined) return undefined;
  if (['1', 'true'].includes(value)) return true;
  if (['0', 'false'].includes(value)) return false;
  throw invalidArgument('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")');
}

function requireContainer({ Container: name = '' }: { Container?: string | undefined }): string {
  if (name === '') throw invalidArgument('invalid name or ID supplied: ""');
  return name;
}

async function inspect({ model, peers }: GatewayContext, call: ApiCall): Promise<void> {
  const name = call.param('id');
  const scope = call.query.get('scope') ?? '';
  checkVerbose(call.query.get('verbose') ?? '');
  const object = model.networks.isCurrent
    ? findNetwork(model.networks.objects, name)
    : (await peers.network.getNetwork({ name }, reading(call))).network;
  if (object === undefined || (scope !== '' && scope !== (object.scope === '' ? 'local' : object.scope)))
    throw notFound(`network ${name} not found`);
  call.json(200, networkInspect.render(object, call.version));
}

/** What it adds is about swarm services, of which there are none. */
function checkVerbose(value: string): void {
  if (!/^(|[01tTfF]|true|TRUE|True|false|FALSE|False)$/.test(value)) {
    const reason = `strconv.ParseBool: parsing ${JSON.stringify(value)}: invalid syntax`;
    throw invalidArgument(`invalid value for verbose: ${value}: ${reason}`);
  }
}

function findNetwork(objects: ReadonlyMap<string, network.Network>, name: string): network.Network | undefined {
  const byId = objects.get(name);
  if (byId !== undefined) return byId;
  const all = [...objects.values()];
  const byName = all.find((object) => object.name === name);
  if (byName !== undefined) return byName;
  const found = name === '' ? [] : all.filter(({ id }) => id.startsWith(name));
  if (found.length > 1)
    throw invalidArgument(`network ${name} is ambiguous (${found.length} matches found on ID prefix)`);
  return found[0];
}

async function create({ peers, model }: GatewayContext, call: ApiCall): Promise<void> {
  const body = (await call.requireJson(createBody)) ?? {};
  const { id, warning, revision } = await peers.network.createNetwork(
    {
      name: body.Name ?? '',
      driver: body.Driver ?? '',
      internal: body.Internal ?? false,
      attachable: body.Attachable ?? false,
      ingress: body.Ingress ?? false,
      // Clients before 1.48 cannot say that they want no IPv4.
      enableIpv4: call.version < apiVersion(1, 48) ? undefined : body.EnableIPv4,
      enableIpv6: body.EnableIPv6,
      ipam: {
        driver: body.IPAM?.Driver ?? '',
        options: Object.fromEntries(body.IPAM?.Options ?? []),
        pools: (body.IPAM?.Config ?? []).map((pool) => ({
          subnet: pool.Subnet ?? '',
          ipRange: pool.IPRange ?? '',
          gateway: pool.Gateway ?? '',
          auxiliaryAddresses: Object.fromEntries(pool.AuxiliaryAddresses ?? []),
        })),
      },
      options: Object.fromEntries(body.Options ?? []),
      labels: Object.fromEntries(body.Labels ?? []),
      configOnly: body.ConfigOnly ?? false,
      configFrom: body.ConfigFrom?.Network ?? '',
      scope: body.Scope ?? '',
    },
    changing(call),
  );
  await model.networks.reached(revision);
  call.json(201, { Id: id, Warning: warning });
}
