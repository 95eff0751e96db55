import {
  NF_INET_LOCAL_OUT,
  NF_NAT_PRIORITY_DST,
  Nftables,
  addressBytes,
  expressions,
  isNetlinkError,
  nftMessages,
} from '@flotilla/netlink';
import type { TableName } from '@flotilla/netlink';
import { dnsAddress } from './dns-address.js';
import type { DnsPorts } from './kernel-operations.js';

const table: TableName = { family: 'ip', name: 'flotilla_dns' };
const dnsPort = 53;

/**
 * Lead port 53 of 127.0.0.11 to our sockets, in the namespace that the thread is in. The sockets are on other ports so that
 * a container may run a name server of its own on port 53.
 */
export function installDnsRules(ports: DnsPorts): void {
  using nft = new Nftables();
  const rule = (protocol: number, port: number): Buffer =>
    nftMessages.appendRule(table, 'output', [
      ...expressions.ipv4DestinationIs(addressBytes(dnsAddress)),
      ...expressions.protocolIs(protocol),
      ...expressions.destinationPortIs(dnsPort),
      ...expressions.ipv4DestinationNat(addressBytes(dnsAddress), port),
    ]);
  const create = [
    nftMessages.addTable(table),
    nftMessages.addBaseChain(table, {
      name: 'output',
      type: 'nat',
      hook: NF_INET_LOCAL_OUT,
      priority: NF_NAT_PRIORITY_DST,
    }),
    rule(17, ports.udp),
    rule(6, ports.tcp),
  ];
  if (nft.rules(table).length === 0) {
    nft.commit(create, 'dns rules');
    return;
  }
  try {
    nft.commit([nftMessages.deleteTable(table), ...create], 'dns rules');
  } catch (error) {
    if (!isNetlinkError(error, 'ENOENT')) throw error;
    nft.commit(create, 'dns rules');
  }
}
