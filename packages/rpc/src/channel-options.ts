import type { ChannelOptions } from '@grpc/grpc-js';

const messageLimit = 16 * 1024 * 1024;

/** Limits of both sides: 16 MiB per message; a window that keeps bulk streams of 256 KiB messages flowing. */
export const channelLimits: ChannelOptions = {
  'grpc.max_receive_message_length': messageLimit,
  'grpc.max_send_message_length': messageLimit,
  'grpc-node.flow_control_window': 1024 * 1024,
};

/** A service that was killed is back in a few hundred milliseconds: try the connection often. */
export const reconnectOptions: ChannelOptions = {
  'grpc.initial_reconnect_backoff_ms': 20,
  'grpc.min_reconnect_backoff_ms': 20,
  'grpc.max_reconnect_backoff_ms': 100,
};
