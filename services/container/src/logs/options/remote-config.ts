/** Where a driver sends to. */
export type RemoteAddress =
  | { readonly proto: 'udp' | 'tcp' | 'tcp+tls'; readonly host: string; readonly port: number }
  | { readonly proto: 'unix' | 'unixgram'; readonly path: string };

/** Files in PEM form, read when a connection is made. */
export interface TlsFiles {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly skipsVerify: boolean;
}

export type SyslogFormat = 'unix' | 'rfc3164' | 'rfc5424' | 'rfc5424micro';

export interface SyslogConfig {
  readonly kind: 'syslog';
  /** Absent: the machine's own, over one of its usual sockets. */
  readonly address?: RemoteAddress;
  readonly tls?: TlsFiles;
  /** 0 to 23. */
  readonly facility: number;
  readonly format: SyslogFormat;
  readonly tag: string;
}

export interface GelfConfig {
  readonly kind: 'gelf';
  readonly address: RemoteAddress;
  readonly compression: 'gzip' | 'zlib' | 'none';
  readonly level: number;
  /** Fields of each message; names begin with an underscore. */
  readonly fields: Readonly<Record<string, string>>;
  /** Between attempts to connect, TCP only. */
  readonly retryWaitMs: number;
  /** Attempts for one batch; then its lines are lost. */
  readonly maxRetries: number;
}

export interface FluentdConfig {
  readonly kind: 'fluentd';
  readonly address: RemoteAddress;
  readonly tag: string;
  readonly fields: Readonly<Record<string, string>>;
  readonly subSecondPrecision: boolean;
  readonly requestAck: boolean;
  readonly retryWaitMs: number;
  readonly maxRetries: number;
}

export interface JournaldConfig {
  readonly kind: 'journald';
  readonly fields: Readonly<Record<string, string>>;
}

export type RemoteConfig = SyslogConfig | GelfConfig | FluentdConfig | JournaldConfig;
