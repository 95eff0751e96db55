import { writeFileSync } from 'node:fs';
import { messageOf } from '@flotilla/errors';
import { Rtnetlink, addressMessages, linkMessages, routeMessages } from '@flotilla/netlink';
import type { Route } from '@flotilla/netlink';
import type { DefaultRoute, GatewaySpec, InterfaceSpec, InterfaceSysctl } from './kernel-operations.js';

/** Bring the loopback and the given interfaces of the namespace that the thread is in to life. */
export function configureInside(interfaces: readonly InterfaceSpec[], gateway: GatewaySpec | undefined): void {
  using rt = new Rtnetlink();
  for (const one of interfaces) {
    setIpv6(one);
    for (const sysctl of one.sysctls) setSysctl(one.name, sysctl);
  }
  const messages = [linkMessages.setUp('lo')];
  for (const one of interfaces) {
    const { index } = rt.link(one.name);
    messages.push(linkMessages.setUp(one.name));
    for (const address of one.addresses) messages.push(addressMessages.addAddress({ linkIndex: index, ...address }));
  }
  messages.push(...gatewayMessages(rt, gateway));
  rt.apply(messages, 'configure sandbox');
}

/** Routes of the namespace that the thread is in: exactly these default routes. */
export function replaceGateway(gateway: GatewaySpec | undefined): void {
  using rt = new Rtnetlink();
  const indexOf = new Map(rt.links().map((link) => [link.name, link.index]));
  const isWanted = (route: Route): boolean =>
    [gateway?.ipv4, gateway?.ipv6].some(
      (wanted) =>
        wanted !== undefined &&
        route.gateway === wanted.via &&
        route.linkIndex === indexOf.get(wanted.interfaceName) &&
        (wanted.via !== undefined || route.family === (wanted === gateway?.ipv4 ? 4 : 6)),
    );
  const loopback = indexOf.get('lo');
  const surplus = rt
    .routes()
    .filter((route) => route.destination === undefined && route.table === 254 && route.linkIndex !== loopback)
    .filter((route) => !isWanted(route));
  const messages = [...surplus.map((route) => routeMessages.deleteRoute(route)), ...gatewayMessages(rt, gateway)];
  if (messages.length > 0) rt.apply(messages, 'default route');
}

export function hasInside(name: string): boolean {
  using rt = new Rtnetlink();
  return rt.findLink(name) !== undefined;
}

/** Delete a link of the namespace that the thread is in; none of that name is fine. */
export function deleteInside(name: string): void {
  using rt = new Rtnetlink();
  if (rt.findLink(name) !== undefined) rt.apply([linkMessages.deleteLink(name)], `delete ${name}`);
}

/**
 * Take the addresses away, so that a namespace on its way out answers for nobody, and the links that have no end outside.
 */
export function silenceInside(upperNames: readonly string[]): void {
  using rt = new Rtnetlink();
  const names = new Map(rt.links().map((link) => [link.index, link.name]));
  const present = new Set(names.values());
  const messages = [
    ...upperNames.filter((name) => present.has(name)).map((name) => linkMessages.deleteLink(name)),
    ...rt
      .addresses()
      .filter(({ linkIndex }) => names.get(linkIndex) !== 'lo' && !upperNames.includes(names.get(linkIndex) ?? ''))
      .map((address) => addressMessages.deleteAddress(address)),
  ];
  if (messages.length > 0) rt.apply(messages, 'silence sandbox');
}

function gatewayMessages(rt: Rtnetlink, gateway: GatewaySpec | undefined): Buffer[] {
  const message = (route: DefaultRoute | undefined, family: 4 | 6): Buffer[] =>
    route === undefined
      ? []
      : [
          routeMessages.setRoute({
            family,
            linkIndex: rt.link(route.interfaceName).index,
            ...(route.via === undefined ? {} : { gateway: route.via }),
          }),
        ];
  return [...message(gateway?.ipv4, 4), ...message(gateway?.ipv6, 6)];
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

/** @throws Error naming the setting, when the kernel does not have it or does not take the value */
function setSysctl(interfaceName: string, { family, group, key, value }: InterfaceSysctl): void {
  try {
    writeFileSync(`/proc/sys/net/${family}/${group}/${interfaceName}/${key}`, value, { flag: 'r+' });
  } catch (error) {
    throw new Error(`cannot set net.${family}.${group}.${interfaceName}.${key} to ${value}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}
