import type { GatewayConfig } from '@flotilla/config';
import { internal } from '@flotilla/errors';
import type { Logger } from '@flotilla/log';
import { config as configProto, container, image, network, registry, volume } from '@flotilla/proto';
import { clientCredentials, connect } from '@flotilla/rpc';
import type { TypedClient } from '@flotilla/rpc';

/** Names of the services that the gateway calls. */
export const peerNames = ['image', 'container', 'network', 'volume', 'registry-proxy'] as const;
export type PeerName = (typeof peerNames)[number];

/** Clients of every owner. */
export interface Peers {
  readonly container: TypedClient<typeof container.ContainerServiceService>;
  readonly image: TypedClient<typeof image.ImageServiceService>;
  readonly network: TypedClient<typeof network.NetworkServiceService>;
  readonly volume: TypedClient<typeof volume.VolumeServiceService>;
  readonly registry: TypedClient<typeof registry.RegistryServiceService>;
  /** What each process tells of itself. */
  readonly control: Readonly<Record<PeerName, TypedClient<typeof configProto.ConfigServiceService>>>;
  close(): void;
}

/** Clients for the addresses of a configuration. Nothing is connected before the first call. */
export async function connectPeers(config: Pick<GatewayConfig, 'services' | 'tls'>, log: Logger): Promise<Peers> {
  const credentials = config.tls === undefined ? undefined : await clientCredentials(config.tls);
  const options = credentials === undefined ? { log } : { log, credentials };
  const addressOf = (name: PeerName): string => {
    const address = config.services[name];
    if (address === undefined) throw internal(`services.${name} is missing in the configuration`);
    return address;
  };
  const control = (name: PeerName): TypedClient<typeof configProto.ConfigServiceService> =>
    connect(configProto.ConfigServiceService, addressOf(name), options);
  const peers = {
    container: connect(container.ContainerServiceService, addressOf('container'), options),
    image: connect(image.ImageServiceService, addressOf('image'), options),
    network: connect(network.NetworkServiceService, addressOf('network'), options),
    volume: connect(volume.VolumeServiceService, addressOf('volume'), options),
    registry: connect(registry.RegistryServiceService, addressOf('registry-proxy'), options),
    control: {
      image: control('image'),
      container: control('container'),
      network: control('network'),
      volume: control('volume'),
      'registry-proxy': control('registry-proxy'),
    },
  };
  return {
    ...peers,
    close: () => {
      const { control: controls, ...services } = peers;
      for (const client of [...Object.values(services), ...Object.values(controls)]) client.close();
    },
  };
}
