const defaultPath = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * The environment of a container's process: PATH, HOSTNAME and, with a terminal, TERM, what links tell, then what the
 * configuration says. `NAME=value` replaces in place, `NAME` alone removes.
 */
export function containerEnvironment(config: {
  env: readonly string[];
  hostname: string;
  terminal: boolean;
  linked?: readonly string[];
}): string[] {
  const defaults = [defaultPath, `HOSTNAME=${config.hostname}`, ...(config.terminal ? ['TERM=xterm'] : [])];
  return replaceEnvironment([...defaults, ...(config.linked ?? [])], config.env);
}

/** `changes` applied to `base`, for exec too. */
export function replaceEnvironment(base: readonly string[], changes: readonly string[]): string[] {
  const values = new Map(base.map((entry) => [nameOf(entry), entry]));
  for (const entry of changes) {
    if (entry.includes('=')) values.set(nameOf(entry), entry);
    else values.delete(entry);
  }
  return [...values.values()];
}

function nameOf(entry: string): string {
  const equals = entry.indexOf('=', 1); // Windows had names that begin with one
  return equals < 0 ? entry : entry.slice(0, equals);
}
