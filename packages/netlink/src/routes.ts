import { addressBytes, addressText } from './addresses.js';
import type { Family } from './addresses.js';
import { attribute, decodeAttributes, uint32 } from './attributes.js';
import { NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, encodeMessage } from './message.js';
import * as rt from './rtnetlink-constants.js';
import { AF_INET, AF_INET6 } from './socket-calls.js';

/** A route of the main or local table. */
export interface Route {
  /** Of a default route without a gateway it says what nothing else does; else it may be left out of a request. */
  family?: Family;
  /** Absent for the default route. */
  destination?: { address: string; prefixLength: number };
  gateway?: string;
  linkIndex?: number;
  table: number;
  priority?: number;
}

const HEADER_SIZE = 12;

function message(type: number, flags: number, route: Omit<Route, 'table'>, family: number): Buffer {
  const header = Buffer.alloc(HEADER_SIZE);
  header[0] = family;
  header[1] = route.destination?.prefixLength ?? 0;
  header[4] = rt.RT_TABLE_MAIN;
  header[5] = rt.RTPROT_STATIC;
  header[6] = route.gateway === undefined ? rt.RT_SCOPE_LINK : rt.RT_SCOPE_UNIVERSE;
  header[7] = rt.RTN_UNICAST;
  const parts: Buffer[] = [header];
  if (route.destination !== undefined) parts.push(attribute(rt.RTA_DST, addressBytes(route.destination.address)));
  if (route.gateway !== undefined) parts.push(attribute(rt.RTA_GATEWAY, addressBytes(route.gateway)));
  if (route.linkIndex !== undefined) parts.push(attribute(rt.RTA_OIF, uint32(route.linkIndex)));
  if (route.priority !== undefined) parts.push(attribute(rt.RTA_PRIORITY, uint32(route.priority)));
  return encodeMessage(type, flags, ...parts);
}

const familyOfRoute = (route: Omit<Route, 'table'>): number =>
  route.family === 6 || (route.gateway ?? route.destination?.address ?? '').includes(':') ? AF_INET6 : AF_INET;

export const routeMessages = {
  /** Add a route of the main table, or put it in the place of the same one. */
  setRoute: (route: Omit<Route, 'table'>): Buffer =>
    message(rt.RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, route, familyOfRoute(route)),
  deleteRoute: (route: Omit<Route, 'table'>): Buffer =>
    message(rt.RTM_DELROUTE, NLM_F_ACK, route, familyOfRoute(route)),
  dumpRoutes: (): Buffer => encodeMessage(rt.RTM_GETROUTE, NLM_F_DUMP, Buffer.alloc(HEADER_SIZE)),
};

export function decodeRoute(body: Buffer): Route {
  const attributes = decodeAttributes(body, HEADER_SIZE);
  const destination = attributes.get(rt.RTA_DST);
  const gateway = attributes.get(rt.RTA_GATEWAY);
  const linkIndex = attributes.get(rt.RTA_OIF)?.readUInt32LE(0);
  const priority = attributes.get(rt.RTA_PRIORITY)?.readUInt32LE(0);
  return {
    family: body[0] === AF_INET6 ? 6 : 4,
    table: attributes.get(rt.RTA_TABLE)?.readUInt32LE(0) ?? body[4] ?? 0,
    ...(destination === undefined
      ? {}
      : { destination: { address: addressText(destination), prefixLength: body[1] ?? 0 } }),
    ...(gateway === undefined ? {} : { gateway: addressText(gateway) }),
    ...(linkIndex === undefined ? {} : { linkIndex }),
    ...(priority === undefined ? {} : { priority }),
  };
}
