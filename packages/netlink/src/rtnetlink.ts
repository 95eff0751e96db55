import { addressMessages, decodeInterfaceAddress } from './interface-addresses.js';
import type { InterfaceAddress } from './interface-addresses.js';
import { decodeLink, linkMessages } from './links.js';
import type { Link } from './links.js';
import { isNetlinkError } from './netlink-error.js';
import { NETLINK_ROUTE, NetlinkSocket } from './netlink-socket.js';
import { decodeRoute, routeMessages } from './routes.js';
import type { Route } from './routes.js';

/** Links, addresses and routes of the network namespace in which it was made. The maker closes it. */
export class Rtnetlink {
  readonly #socket = new NetlinkSocket(NETLINK_ROUTE);

  /** Several changes in one system call, see `NetlinkSocket.request`. */
  apply(messages: readonly Buffer[], what: string): void {
    this.#socket.request(messages, what);
  }

  /** @throws NetlinkError ENODEV when there is no such link */
  link(name: string): Link {
    const [answer] = this.#socket.request([linkMessages.getLink(name)], `link ${name}`);
    if (answer === undefined) throw new Error(`link ${name}: the kernel did not answer`);
    return decodeLink(answer.body);
  }

  findLink(name: string): Link | undefined {
    try {
      return this.link(name);
    } catch (error) {
      if (isNetlinkError(error, 'ENODEV')) return undefined;
      throw error;
    }
  }

  links(): Link[] {
    return this.#socket.dump(linkMessages.dumpLinks(), 'dump links').map(decodeLink);
  }

  addresses(): InterfaceAddress[] {
    return this.#socket.dump(addressMessages.dumpAddresses(), 'dump addresses').map(decodeInterfaceAddress);
  }

  routes(): Route[] {
    return this.#socket.dump(routeMessages.dumpRoutes(), 'dump routes').map(decodeRoute);
  }

  close(): void {
    this.#socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
