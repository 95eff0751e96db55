import { createSocket } from 'node:dgram';
import type { RemoteInfo, Socket as UdpSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { familyOf } from '@flotilla/netlink';
import type { PortRecord } from '../store/records.js';

/** A socket that holds a host port and passes on what reaches it. */
export interface Relay {
  readonly port: number;
  /** Open connections end too. */
  close(): void;
}

type Target = () => string | undefined;

const udpIdleMs = 90_000;
const maxUdpSessions = 4096;

/**
 * Bind a host port and relay its traffic to the container's port.
 *
 * @param target the container's present address, asked for at each new connection
 */
export function openRelay(record: PortRecord, target: Target): Promise<Relay> {
  return record.protocol === 'tcp' ? openTcpRelay(record, target) : openUdpRelay(record, target);
}

function openTcpRelay({ hostIp, hostPort, containerPort }: PortRecord, target: Target): Promise<Relay> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (client) => {
    const host = target();
    if (host === undefined) {
      client.destroy();
      return;
    }
    const upstream = connect({ host, port: containerPort, allowHalfOpen: true });
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => other.resetAndDestroy());
      socket.on('close', () => {
        open.delete(socket);
        if (socket.errored !== null) other.destroy();
      });
      socket.pipe(other);
    }
    client.resume();
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: hostIp, port: hostPort, ipv6Only: familyOf(hostIp) === 6, exclusive: true }, () => {
      server.off('error', reject);
      server.on('error', () => undefined); // accept failures (no descriptors left) pass
      const address = server.address();
      resolve({
        port: typeof address === 'object' && address !== null ? address.port : hostPort,
        close: () => {
          server.close();
          for (const socket of open) socket.destroy();
        },
      });
    });
  });
}

function openUdpRelay({ hostIp, hostPort, containerPort }: PortRecord, target: Target): Promise<Relay> {
  const sessions = new Map<string, { upstream: UdpSocket; timer: NodeJS.Timeout }>();
  const server = createSocket({ type: familyOf(hostIp) === 6 ? 'udp6' : 'udp4', ipv6Only: familyOf(hostIp) === 6 });

  const endSession = (key: string): void => {
    const session = sessions.get(key);
    if (session === undefined) return;
    sessions.delete(key);
    clearTimeout(session.timer);
    session.upstream.close();
  };
  const upstreamFor = (client: RemoteInfo, host: string): UdpSocket | undefined => {
    const key = `${client.address} ${client.port}`;
    const known = sessions.get(key);
    if (known !== undefined) {
      known.timer.refresh();
      return known.upstream;
    }
    if (sessions.size >= maxUdpSessions) return undefined;
    const upstream = createSocket(familyOf(host) === 6 ? 'udp6' : 'udp4');
    upstream.on('message', (message) => {
      sessions.get(key)?.timer.refresh();
      server.send(message, client.port, client.address, () => undefined);
    });
    upstream.on('error', () => endSession(key));
    sessions.set(key, { upstream, timer: setTimeout(() => endSession(key), udpIdleMs).unref() });
    return upstream;
  };
  server.on('message', (message, client) => {
    const host = target();
    if (host !== undefined) upstreamFor(client, host)?.send(message, containerPort, host, () => undefined);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.bind({ address: hostIp, port: hostPort, exclusive: true }, () => {
      server.off('error', reject);
      server.on('error', () => undefined);
      resolve({
        port: server.address().port,
        close: () => {
          for (const key of [...sessions.keys()]) endSession(key);
          server.close();
        },
      });
    });
  });
}
