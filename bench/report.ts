import { execFileSync } from 'node:child_process';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { median, type Measurement } from './measurement.js';

/** All rounds of one measurement. */
export interface Row {
  readonly measurement: Pick<Measurement, 'title' | 'unit' | 'aim'>;
  readonly flotilla: readonly number[];
  readonly dockerd: readonly number[];
  /** Where podman does the same. */
  readonly podman?: readonly number[];
}

const digits = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toFixed(1));

/** The table of bench/RESULTS.md. */
export function renderReport(
  rows: readonly Row[],
  facts: {
    peerVersion: string;
    podmanVersion: string | undefined;
    storage: string;
    commit: string;
    loadBefore: number;
  },
): string {
  const isBeside = facts.podmanVersion !== undefined;
  const lines = [
    '# Flotilla beside dockerd',
    '',
    `Made by \`npm run bench\` on ${new Date().toISOString().slice(0, 10)} at commit ${facts.commit}; do not edit.`,
    '',
    `Machine: ${cpus().length} x ${cpus()[0]?.model ?? 'unknown CPU'}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB, Linux ${release()}, Node ${process.version}. ` +
      `Load average before ${facts.loadBefore.toFixed(1)}, after ${(loadavg()[0] ?? 0).toFixed(1)} (the bench itself included).`,
    `Peer: ${facts.peerVersion}, overlay2, started by the bench${facts.podmanVersion === undefined ? '' : `; beside them ${facts.podmanVersion} with overlay, where it does the same`}. Engines in network namespaces of their own, data roots on ${facts.storage}. Rounds alternate A B A B; figures are medians, [min-max].`,
    '',
    `| measurement | unit | Flotilla | dockerd | ratio | aim | reached |${isBeside ? ' podman |' : ''}`,
    `|---|---|---|---|---|---|---|${isBeside ? '---|' : ''}`,
  ];
  for (const { measurement, flotilla, dockerd, podman } of rows) {
    const [a, b] = [median(flotilla), median(dockerd)];
    const ratio = a / b;
    const { aim } = measurement;
    const reached =
      aim === undefined ? '' : (aim.kind === 'at most' ? ratio <= aim.ratio : ratio >= aim.ratio) ? 'yes' : '**no**';
    const cell = (values: readonly number[]) =>
      values.length === 0
        ? 'none: failed, or not built'
        : `${digits(median(values))} [${digits(Math.min(...values))}-${digits(Math.max(...values))}]`;
    lines.push(
      `| ${measurement.title} | ${measurement.unit} | ${cell(flotilla)} | ${cell(dockerd)} | ${ratio.toFixed(2)}x | ${aim ? `${aim.kind} ${aim.ratio}x` : ''} | ${reached} |${isBeside ? ` ${podman === undefined ? '' : cell(podman)} |` : ''}`,
    );
  }
  return `${lines.join('\n')}\n`;
}

/** Short commit of the working tree, with `+` when it has changes. */
export function currentCommit(root: string): string {
  const git = (...args: string[]) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
  return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '+');
}
