export { makeCertificates } from './certificates.js';
export type { KeyPair, TestCertificates } from './certificates.js';
export { expectNoLeaks, snapshotKernelState } from './kernel-state.js';
export type { KernelState, LeakScope } from './kernel-state.js';
export { receiveDatagrams, receiveStreams, receiveUnixDatagrams } from './log-receivers.js';
export type { LogReceiver, StreamReceiverOptions } from './log-receivers.js';
export { memoryInUse } from './memory-in-use.js';
export { startNats } from './nats.js';
export type { TestNats } from './nats.js';
export { makeTempDir } from './temp-dir.js';
export type { TempDir } from './temp-dir.js';
export { waitFor } from './wait-for.js';
export type { WaitOptions } from './wait-for.js';
export { startFaultProxy } from './fault-proxy.js';
export type { Fault, FaultProxy, SeenRequest } from './fault-proxy.js';
export { makeApplication } from './application.js';
export type { Application } from './application.js';
export { compose1, installComposePlugin } from './compose.js';
export type { ProgramInvocation } from './compose.js';
export { startDockerd, unpackDockerPackage } from './dockerd.js';
export type { DockerdPeer } from './dockerd.js';
export { makePodman } from './podman.js';
export type { PodmanPeer } from './podman.js';
export {
  busyboxImage,
  debianImage,
  debianRootfsTar,
  dockerArchive,
  gzipLayer,
  indexEntry,
  makeImage,
  makeIndex,
  ociArchive,
  plainTar,
  sha256,
  tarDirectory,
  writeBusyboxRootfs,
} from './image-fixtures.js';
export type { FixtureConfig, FixtureImage, FixtureIndexEntry, FixtureLayer, RawTarEntry } from './image-fixtures.js';
export { createNetworkNamespace } from './network-namespace.js';
export type { NetworkNamespace } from './network-namespace.js';
export { mountExt4Disk } from './ext4-disk.js';
export { mountSilentFileSystem } from './silent-file-system.js';
export type { SilentFileSystem } from './silent-file-system.js';
export type { Ext4Disk, Ext4DiskOptions } from './ext4-disk.js';
export { startRegistry } from './registry.js';
export type { Registry, RegistryOptions } from './registry.js';
export { examineImageStore, imageStoreFaults } from './image-store.js';
export type { ImageStoreReport } from './image-store.js';
export { startEngine, unmountBelow } from './engine.js';
export type { EngineOptions, EngineProcess, EngineUnderTest } from './engine.js';
export { serviceConfigFor, startService } from './service.js';
export type { ServiceOptions, ServiceUnderTest } from './service.js';
