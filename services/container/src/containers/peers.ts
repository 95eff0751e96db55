import type { common, image, network, volume } from '@flotilla/proto';

/** What the lifecycle asks of the image service. Every call may be repeated: it is keyed by the container's id. */
export interface ImagePeer {
  prepareLayer(request: image.PrepareContainerLayerRequest): Promise<image.PrepareContainerLayerResponse>;
  releaseLayer(containerId: string): Promise<void>;
  /** Make an image of what the container has written; goes on as long as it takes. Repeated by its request id. */
  commit(
    request: image.CommitContainerRequest,
    requestId: string,
    signal: AbortSignal,
  ): Promise<image.CommitContainerResponse>;
  layerUsage(containerId: string): Promise<image.GetContainerLayerUsageResponse>;
  reconcile(liveIds: string[], revision: bigint): Promise<string[]>;
}

export interface AcquiredVolume {
  name: string;
  driver: string;
  mountpoint: string;
}

export interface AcquireVolume {
  holder: common.Holder;
  /** Empty for an anonymous volume. */
  name: string;
  /** Of an anonymous volume that another container has, by `--volumes-from`. */
  isAnonymous: boolean;
  driver: string;
  options: Record<string, string>;
  labels: Record<string, string>;
  destination: string;
  readOnly: boolean;
}

/** What the lifecycle asks of the volume service. Every call may be repeated. */
export interface VolumePeer {
  acquire(request: AcquireVolume): Promise<AcquiredVolume>;
  releaseAll(containerId: string, removeAnonymous: boolean): Promise<void>;
  mount(containerId: string, name: string, destination: string, readOnly: boolean): Promise<volume.MountVolumeResponse>;
  unmountAll(containerId: string): Promise<void>;
  reconcile(liveIds: string[], revision: bigint): Promise<string[]>;
}

/** What the lifecycle asks of the network service. Every call may be repeated. */
export interface NetworkPeer {
  check(endpoints: network.EndpointRequest[], ports: network.PortBinding[]): Promise<network.CheckSandboxResponse>;
  prepare(request: network.PrepareSandboxRequest): Promise<network.PrepareSandboxResponse>;
  release(containerId: string): Promise<void>;
  rename(containerId: string, name: string): Promise<network.Endpoint[]>;
  connect(containerId: string, endpoint: network.EndpointRequest): Promise<network.ConnectSandboxResponse>;
  disconnect(containerId: string, networkName: string, force: boolean): Promise<void>;
  reconcile(liveIds: string[], revision: bigint): Promise<string[]>;
}

/** The other services, as far as the lifecycle knows them. All calls have deadlines and wait up to 10 s for a service that is down. */
export interface Peers {
  images: ImagePeer;
  volumes: VolumePeer;
  networks: NetworkPeer;
}
