import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

const searchPath = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
/** Looking costs a process of 2 ms for each family. */
const lookEveryMs = 2000;
/** Another program may hold the lock of iptables: everything else of the network waits meanwhile. */
const waitSeconds = '2';
const timeoutMs = 5000;

const families = [
  { family: 'ipv4', program: 'iptables-legacy', tables: '/proc/thread-self/net/ip_tables_names' },
  { family: 'ipv6', program: 'ip6tables-legacy', tables: '/proc/thread-self/net/ip6_tables_names' },
] as const;

/**
 * The filter tables of legacy iptables, which nftables does not show and whose drops it cannot overrule. Only looked at
 * where somebody uses them; a FORWARD chain that is closed there gets rules for our bridges, marked by a comment.
 */
export class LegacyFirewall {
  readonly #comment: string;
  readonly #isManaged: Readonly<Record<'ipv4' | 'ipv6', boolean>>;
  #lastLook = 0;

  /** @param isManaged families of which the engine may touch rules */
  constructor(comment: string, isManaged: Readonly<Record<'ipv4' | 'ipv6', boolean>>) {
    this.#comment = comment;
    this.#isManaged = isManaged;
  }

  /**
   * Let our bridges through, and take rules of bridges that are gone away.
   *
   * @param isNow not only when the last look is some time ago
   */
  openForward(bridges: readonly string[], { isNow = false } = {}): void {
    if (!isNow && performance.now() - this.#lastLook < lookEveryMs) return;
    this.#lastLook = performance.now();
    for (const { family, program, tables } of families) {
      if (this.#isManaged[family] && isFilterTableLoaded(tables)) this.#openFamily(program, bridges);
    }
  }

  #openFamily(program: string, bridges: readonly string[]): void {
    const listing = run(program, ['-w', waitSeconds, '-S', 'FORWARD']);
    if (listing === undefined) return; // the program is not installed: nothing that we could do
    const rules = listing.split('\n');
    const ours = rules.filter((rule) => rule.includes(`--comment ${this.#comment} `));
    const isClosed = rules.some((rule) => /^-P FORWARD DROP$|^-A FORWARD -j (DROP|REJECT)\b/.test(rule));
    const wanted = (isClosed ? bridges : []).flatMap((bridge) =>
      ['-i', '-o'].map(
        (direction) => `-A FORWARD ${direction} ${bridge} -m comment --comment ${this.#comment} -j ACCEPT`,
      ),
    );
    const changes = [
      ...ours.filter((rule) => !wanted.includes(rule)).map((rule) => rule.replace('-A', '-D')),
      ...wanted.filter((rule) => !ours.includes(rule)).map((rule) => rule.replace('-A', '-I')),
    ];
    if (changes.length === 0) return;
    run(`${program}-restore`, ['-w', waitSeconds, '--noflush'], ['*filter', ...changes, 'COMMIT', ''].join('\n'));
  }
}

/** Asking iptables itself would load the table. */
function isFilterTableLoaded(path: string): boolean {
  try {
    return readFileSync(path, 'utf8').split('\n').includes('filter');
  } catch {
    return false; // a kernel without legacy iptables
  }
}

/** @returns what a program wrote; undefined when it could not be run or failed */
function run(program: string, args: readonly string[], input = ''): string | undefined {
  const { status, stdout } = spawnSync(program, args, {
    input,
    timeout: timeoutMs,
    encoding: 'utf8',
    env: { ...process.env, PATH: searchPath },
  });
  return status === 0 ? stdout : undefined;
}
