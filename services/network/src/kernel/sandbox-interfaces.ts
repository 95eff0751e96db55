import { writeFileSync } from 'node:fs';
import { Rtnetlink, addressMessages, linkMessages, routeMessages } from '@flotilla/netlink';
import type { GatewaySpec, InterfaceSpec } from './kernel-operations.js';

/** Bring the loopback and the given interfaces of the namespace that the thread is in to life. */
export function configureInside(interfaces: readonly InterfaceSpec[], gateway: GatewaySpec | undefined): void {
  using rt = new Rtnetlink();
  for (const one of interfaces) setIpv6(one);
  const messages = [linkMessages.setUp('lo')];
  for (const one of interfaces) {
    const { index } = rt.link(one.name);
    messages.push(linkMessages.setUp(one.name));
    for (const address of one.addresses) messages.push(addressMessages.addAddress({ linkIndex: index, ...address }));
  }
  messages.push(...gatewayMessages(gateway));
  rt.apply(messages, 'configure sandbox');
}

/** Routes of the namespace that the thread is in: exactly these default gateways. */
export function replaceGateway(gateway: GatewaySpec | undefined): void {
  using rt = new Rtnetlink();
  const wanted = [gateway?.ipv4, gateway?.ipv6];
  const surplus = rt
    .routes()
    .filter((route) => route.destination === undefined && route.table === 254 && !wanted.includes(route.gateway))
    .filter((route) => route.gateway !== undefined);
  const removals = surplus.map(({ gateway: via, linkIndex }) =>
    routeMessages.deleteRoute({
      ...(via === undefined ? {} : { gateway: via }),
      ...(linkIndex === undefined ? {} : { linkIndex }),
    }),
  );
  const messages = [...removals, ...gatewayMessages(gateway)];
  if (messages.length > 0) rt.apply(messages, 'default route');
}

/** Take the addresses away, so that a namespace on its way out answers for nobody. */
export function silenceInside(): void {
  using rt = new Rtnetlink();
  const names = new Map(rt.links().map((link) => [link.index, link.name]));
  const messages = rt
    .addresses()
    .filter((address) => names.get(address.linkIndex) !== 'lo')
    .map((address) => addressMessages.deleteAddress(address));
  if (messages.length > 0) rt.apply(messages, 'silence sandbox');
}

function gatewayMessages(gateway: GatewaySpec | undefined): Buffer[] {
  return [gateway?.ipv4, gateway?.ipv6].flatMap((via) =>
    via === undefined ? [] : [routeMessages.setRoute({ gateway: via })],
  );
}

/** No IPv6 at all, not even link-local, on an interface that has no IPv6 address. */
function setIpv6(one: InterfaceSpec): void {
  const hasIpv6 = one.addresses.some(({ address }) => address.includes(':'));
  try {
    writeFileSync(`/proc/sys/net/ipv6/conf/${one.name}/disable_ipv6`, hasIpv6 ? '0' : '1');
  } catch {
    // A kernel without IPv6 has nothing to switch off.
  }
}
