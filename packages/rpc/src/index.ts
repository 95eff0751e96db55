export { grpcTarget, isUnixAddress, removeStaleSocket } from './address.js';
export type { Listen, TlsFiles } from './address.js';
export type { Clock } from './call-metadata.js';
export { connect } from './client.js';
export type { ConnectOptions, ServerStreamOptions, StreamOptions, TypedClient, UnaryCallOptions } from './client.js';
export type { ConfigParticipant, ServiceDetails } from './config-service.js';
export { clientCredentials } from './credentials.js';
export { bidi, clientStream, serverStream, serviceEntry, unary } from './handlers.js';
export type {
  AnyHandler,
  BidiMethod,
  CallContext,
  ClientStreamMethod,
  Decoder,
  HandlerFor,
  Implementation,
  ServerStreamMethod,
  ServiceEntry,
  UnaryMethod,
  UnaryOptions,
} from './handlers.js';
export { HealthControl } from './health.js';
export { engineIdentity } from './identity.js';
export type { Identity } from './identity.js';
export type { AnyMethod, AnyServiceDefinition } from './method-types.js';
export { runService } from './run-service.js';
export { isVisible, matchesLabels } from './selection.js';
export type { Labels } from './selection.js';
export { serve } from './server.js';
export type { RunningServer, ServeOptions } from './server.js';
export type { ReplyReader } from './server-calls.js';
export { fromServiceError, toStatus } from './status.js';
export { watch } from './watch.js';
export type { Changes, WatchMessage, WatchSource } from './watch.js';
