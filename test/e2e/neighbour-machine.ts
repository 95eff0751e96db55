import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createNetworkNamespace, type NetworkNamespace } from '@flotilla/testkit';

/** Another machine on a wire to the engine's: it sends what is for the engine's containers there. */
export interface NeighbourMachine extends AsyncDisposable {
  readonly namespace: NetworkNamespace;
  /** Interface of the engine's machine that the wire is at. */
  readonly wire: string;
  readonly address: { engine: string; neighbour: string; engineV6: string; neighbourV6: string };
  /** What a web server answers; empty when nothing comes of it within a second. */
  get(url: string): string;
  /** Answers every TCP connection to the port with the address that it came from. */
  tellSource(port: number): Promise<void>;
}

export function connectNeighbour(engine: NetworkNamespace): NeighbourMachine {
  const namespace = createNetworkNamespace();
  const wire = 'wire0';
  const address = { engine: '192.0.2.1', neighbour: '192.0.2.2', engineV6: '2001:db8::1', neighbourV6: '2001:db8::2' };
  engine.run('ip', ['link', 'add', wire, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace.name]);
  for (const [on, link, own, ownV6] of [
    [engine, wire, address.engine, address.engineV6],
    [namespace, 'eth0', address.neighbour, address.neighbourV6],
  ] as const) {
    on.run('ip', ['address', 'add', `${own}/24`, 'dev', link]);
    on.run('ip', ['address', 'add', `${ownV6}/64`, 'dev', link, 'nodad']);
    on.run('ip', ['link', 'set', link, 'up']);
  }
  namespace.run('ip', ['route', 'add', 'default', 'via', address.engine]);
  namespace.run('ip', ['-6', 'route', 'add', 'default', 'via', address.engineV6]);
  const servers: ChildProcess[] = [];
  return {
    namespace,
    wire,
    address,
    get(url) {
      try {
        return namespace.run('curl', ['-gsS', '--max-time', '1', url]).trim();
      } catch {
        return '';
      }
    },
    async tellSource(port) {
      const script = `require('net').createServer((s) => s.on('error', () => {}).end(s.remoteAddress.replace('::ffff:', ''))).listen(${port}, '::', () => console.log('ready'))`;
      const server = namespace.spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
      servers.push(server);
      if (server.stdout !== null) await once(server.stdout, 'data');
    },
    async [Symbol.asyncDispose]() {
      for (const server of servers) {
        const ended = once(server, 'exit');
        server.kill();
        await ended;
      }
      namespace[Symbol.dispose]();
    },
  };
}
