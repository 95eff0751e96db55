import { network as proto, timestampFromNs } from '@flotilla/proto';
import type { NetworkStore } from '../store/network-store.js';
import type { EndpointRecord, NetworkRecord, PortRecord, SandboxRecord } from '../store/records.js';

export function renderNetwork(record: NetworkRecord, store: NetworkStore): proto.Network {
  const { id, name, driver, scope, internal, attachable, ingress, enableIpv4, enableIpv6, ipam, options, labels } =
    record;
  const { configOnly, configFrom, predefined } = record;
  return {
    ...{ id, name, driver, scope, internal, attachable, ingress, enableIpv4, enableIpv6, ipam, options, labels },
    ...{ configOnly, configFrom, predefined },
    createdAt: timestampFromNs(BigInt(record.createdAtNs)),
    endpoints: store
      .sandboxes()
      .flatMap((sandbox) =>
        sandbox.endpoints.filter((one) => one.networkId === id).map((one) => renderEndpoint(one, sandbox, name)),
      ),
  };
}

export function renderEndpoint(endpoint: EndpointRecord, sandbox: SandboxRecord, networkName: string): proto.Endpoint {
  const { hostInterfaceName: _, linkLocalIps: __, ...shown } = endpoint;
  return { ...shown, networkName, containerId: sandbox.containerId, containerName: sandbox.containerName };
}

export function renderEndpoints(sandbox: SandboxRecord, store: NetworkStore): proto.Endpoint[] {
  return sandbox.endpoints.map((endpoint) =>
    renderEndpoint(endpoint, sandbox, store.network(endpoint.networkId)?.name ?? ''),
  );
}

export function renderPort(port: PortRecord): proto.PortBinding {
  return { ...port, hostPortEnd: 0 };
}
