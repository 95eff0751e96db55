/** The log drivers that are built in, as `docker info` lists them; `none` is not listed. */
export const LOG_DRIVERS = ['fluentd', 'gelf', 'journald', 'json-file', 'local', 'syslog'] as const;

/** What `log-driver` and a container's `LogConfig.Type` may be. */
export type LogDriver = (typeof LOG_DRIVERS)[number] | 'none';

export function isLogDriver(name: string): name is LogDriver {
  return name === 'none' || LOG_DRIVERS.some((driver) => driver === name);
}
