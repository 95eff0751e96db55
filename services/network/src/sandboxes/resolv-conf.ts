/** What a resolver file says. */
export interface ResolvConf {
  nameservers: string[];
  search: string[];
  options: string[];
}

/** What a container asks for instead of the host's settings; empty lists ask for nothing. */
export interface DnsWishes {
  servers: readonly string[];
  search: readonly string[];
  options: readonly string[];
}

/** For machines that have no name server, as dockerd does. */
export const publicNameservers: readonly string[] = ['8.8.8.8', '8.8.4.4'];

export function parseResolvConf(text: string): ResolvConf {
  const parsed: ResolvConf = { nameservers: [], search: [], options: [] };
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line
      .replace(/[#;].*$/, '')
      .trim()
      .split(/\s+/);
    if (keyword === 'nameserver' && values[0] !== undefined) parsed.nameservers.push(values[0]);
    if (keyword === 'search' || keyword === 'domain') parsed.search = values;
    if (keyword === 'options') parsed.options.push(...values);
  }
  return parsed;
}

/**
 * For containers that ask the outside directly: the host's file, without name servers on its loopback, which a container
 * cannot reach.
 */
export function externalResolvConf(host: ResolvConf, wishes: DnsWishes): string {
  const reachable = host.nameservers.filter((address) => !isLoopback(address));
  const nameservers = wishes.servers.length > 0 ? wishes.servers : reachable.length > 0 ? reachable : publicNameservers;
  return render(nameservers, searchOf(host, wishes), wishes.options.length > 0 ? wishes.options : host.options);
}

/** For containers of user-defined networks, who ask 127.0.0.11. */
export function internalResolvConf(address: string, host: ResolvConf, wishes: DnsWishes): string {
  const options = wishes.options.length > 0 ? [...wishes.options] : [...host.options];
  // Names of containers have no dots: they must be asked for as they are first.
  const hasNdots = options.some((option) => option.startsWith('ndots:')) && wishes.options.length > 0;
  const others = hasNdots ? options : options.filter((option) => !option.startsWith('ndots:'));
  return render([address], searchOf(host, wishes), hasNdots ? others : [...others, 'ndots:0']);
}

export function isLoopback(address: string): boolean {
  return address.startsWith('127.') || address === '::1';
}

/** A search list of `.` asks for none. */
function searchOf(host: ResolvConf, wishes: DnsWishes): readonly string[] {
  if (wishes.search.length === 0) return host.search;
  return wishes.search.filter((domain) => domain !== '.');
}

function render(nameservers: readonly string[], search: readonly string[], options: readonly string[]): string {
  const lines = nameservers.map((address) => `nameserver ${address}`);
  if (search.length > 0) lines.push(`search ${search.join(' ')}`);
  if (options.length > 0) lines.push(`options ${options.join(' ')}`);
  return `${lines.join('\n')}\n`;
}
