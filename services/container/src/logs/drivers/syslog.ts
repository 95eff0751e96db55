import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import type { RemoteAddress, SyslogConfig } from '../options/remote-config.js';
import type { Receiver, SentEntry } from './receiver.js';
import { openTransport, type Transport } from './transport.js';

const ERROR = 3;
const INFO = 6;
const localPaths = ['/dev/log', '/var/run/syslog', '/var/run/log'];
const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** The socket of this machine's syslog. Undefined where there is none. */
export function localSyslog(): string | undefined {
  return localPaths.find((path) => existsSync(path));
}

/** One message per entry. Source: moby/moby daemon/logger/syslog/syslog.go, RackSec/srslog formatter.go. */
export class SyslogReceiver implements Receiver {
  readonly #config: SyslogConfig;
  #transport: Transport | undefined;

  constructor(config: SyslogConfig) {
    this.#config = config;
  }

  async send(entries: readonly SentEntry[], signal: AbortSignal): Promise<void> {
    const messages = entries
      .filter(({ text }) => text.length > 0)
      .map((entry) => syslogMessage(this.#config, entry, hostname(), process.pid));
    const { address, tls } = this.#config;
    if (this.#transport !== undefined || address !== undefined) {
      this.#transport ??= openTransport(address as RemoteAddress, tls);
      await this.#transport.write(messages, signal);
      return;
    }
    // The machine's own takes datagrams, or a stream where it does not.
    const path = localSyslog();
    if (path === undefined) throw new Error('Unix syslog delivery error');
    const datagrams = openTransport({ proto: 'unixgram', path });
    try {
      await datagrams.write(messages, signal);
      this.#transport = datagrams;
    } catch {
      const stream = openTransport({ proto: 'unix', path });
      await stream.write(messages, signal);
      this.#transport = stream;
    }
  }

  close(): void {
    this.#transport?.close();
  }
}

export function syslogMessage(config: SyslogConfig, entry: SentEntry, host: string, pid: number): Buffer {
  const priority = config.facility * 8 + (entry.stream === 2 ? ERROR : INFO);
  const message = Buffer.concat([
    Buffer.from(header(config, entry.time, priority, host, pid)),
    entry.text,
    Buffer.from('\n'),
  ]);
  const isFramed = config.format.startsWith('rfc5424') && config.address?.proto === 'tcp+tls';
  return isFramed ? Buffer.concat([Buffer.from(`${message.length} `), message]) : message;
}

function header({ format, tag }: SyslogConfig, time: string, priority: number, host: string, pid: number): string {
  switch (format) {
    case 'unix':
      return `<${priority}>${stamp(time)} ${tag}[${pid}]: `;
    case 'rfc3164':
      return `<${priority}>${stamp(time)} ${host} ${tag}[${pid}]: `;
    case 'rfc5424':
      return `<${priority}>1 ${time.slice(0, 19)}Z ${host} ${tag} ${pid} ${tag} - `;
    case 'rfc5424micro':
      return `<${priority}>1 ${time.slice(0, 26)}Z ${host} ${tag} ${pid} ${tag} - `;
  }
}

/** Go's time.Stamp, in the machine's zone. */
function stamp(time: string): string {
  const date = new Date(time);
  const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0'));
  return `${months[date.getMonth()] ?? ''} ${String(date.getDate()).padStart(2)} ${clock.join(':')}`;
}
