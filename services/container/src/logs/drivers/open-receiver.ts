import type { RemoteConfig } from '../options/remote-config.js';
import { FluentdReceiver } from './fluentd.js';
import { GelfReceiver } from './gelf.js';
import { hasJournal, JournaldReceiver } from './journald.js';
import type { Receiver } from './receiver.js';
import { localSyslog, SyslogReceiver } from './syslog.js';

/** Nothing is connected yet: whoever cannot be reached is tried again while the container runs. */
export function openReceiver(config: RemoteConfig): Receiver {
  switch (config.kind) {
    case 'syslog':
      return new SyslogReceiver(config);
    case 'gelf':
      return new GelfReceiver(config);
    case 'fluentd':
      return new FluentdReceiver(config);
    case 'journald':
      return new JournaldReceiver(config);
  }
}

/** What this machine lacks is told before the container runs. @throws Error in dockerd's words. */
export function requireReceiver(config: RemoteConfig): void {
  if (config.kind === 'journald' && !hasJournal()) throw new Error('journald is not enabled on this host');
  if (config.kind === 'syslog' && config.address === undefined && localSyslog() === undefined) {
    throw new Error('Unix syslog delivery error');
  }
}
