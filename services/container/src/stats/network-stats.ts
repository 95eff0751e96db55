/** Counters of one interface in Docker's names. */
export type InterfaceStats = Record<`${'rx' | 'tx'}_${'bytes' | 'packets' | 'errors' | 'dropped'}`, number>;

/** Every interface but the loopback in a /proc/<pid>/net/dev. */
export function interfaceStats(netDev: string): Record<string, InterfaceStats> {
  const interfaces: Record<string, InterfaceStats> = {};
  for (const line of netDev.split('\n')) {
    const [, name, counters] = /^\s*([^\s:]+):\s*(.*)$/.exec(line) ?? [];
    if (name === undefined || counters === undefined || name === 'lo') continue;
    const [rxBytes, rxPackets, rxErrors, rxDropped, , , , , txBytes, txPackets, txErrors, txDropped] = counters
      .trim()
      .split(/\s+/)
      .map(Number);
    interfaces[name] = {
      rx_bytes: rxBytes ?? 0,
      rx_packets: rxPackets ?? 0,
      rx_errors: rxErrors ?? 0,
      rx_dropped: rxDropped ?? 0,
      tx_bytes: txBytes ?? 0,
      tx_packets: txPackets ?? 0,
      tx_errors: txErrors ?? 0,
      tx_dropped: txDropped ?? 0,
    };
  }
  return interfaces;
}
