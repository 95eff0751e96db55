import { join } from 'node:path';
import { createNetworkNamespace, startDockerd } from '@flotilla/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { probeMatrix, questionKey, sources, targets, type Matrix, type Outcome } from './probe-matrix.js';
import { runCommand, startTestEngine, type TestEngine } from './test-engine.js';

/** Outcomes over TCP and UDP, in the order of the targets. docs/compatibility.md has them beside dockerd's. */
const expected: Record<(typeof sources)[number], [Outcome, Outcome][]> = {
  'the container itself': [
    ['gateway', 'gateway'],
    ['own', 'own'],
    ['own', 'own'],
  ],
  'neighbour, same network': [
    ['gateway', 'gateway'],
    ['own', 'own'],
    ['own', 'own'],
  ],
  'container of another network': [
    ['own', 'own'],
    ['no', 'no'],
    ['no', 'no'],
  ],
  'host, 127.0.0.1': [
    ['gateway', 'gateway'],
    ['gateway', 'gateway'],
    ['gateway', 'gateway'],
  ],
  'host, ::1': [
    ['gateway', 'gateway'],
    ['-', '-'],
    ['-', '-'],
  ],
  'host, its own address': [
    ['own', 'own'],
    ['gateway', 'gateway'],
    ['gateway', 'gateway'],
  ],
  'another machine': [
    ['own', 'own'],
    ['no', 'no'],
    ['no', 'no'],
  ],
};

const wanted: Matrix = new Map(
  sources.flatMap((source) =>
    targets.flatMap((target, index) =>
      (['tcp', 'udp'] as const).map((transport, side): [string, Outcome] => [
        questionKey(source, target, transport),
        expected[source][index]?.[side] ?? '-',
      ]),
    ),
  ),
);

describe('who reaches which port of a container', () => {
  let t: TestEngine;
  beforeAll(async () => {
    t = await startTestEngine();
  });
  afterAll(async () => {
    await t[Symbol.asyncDispose]();
  });
  const probed = () => ({ host: t.namespace, docker: (...args: string[]) => t.ok(...args) });

  it('is what the table says', async () => {
    const matrix = await probeMatrix(probed(), (key) => wanted.get(key) !== 'no');
    expect(Object.fromEntries(matrix)).toEqual(Object.fromEntries(wanted));
  });

  // PROBE_DOCKERD=1 prints the table of docs/compatibility.md.
  it.skipIf(process.env['PROBE_DOCKERD'] === undefined)('is compared with dockerd', async () => {
    const ours = await probeMatrix(probed(), () => true);
    const archive = `${t.directory}/busybox.tar`;
    await t.ok('save', '-o', archive, 'busybox:latest');
    using host = createNetworkNamespace();
    await using dockerd = await startDockerd({
      directory: `${t.directory}/dockerd`,
      cacheDirectory: join(import.meta.dirname, '../../.cache'),
      namespace: host,
    });
    const docker = async (...args: string[]): Promise<string> => {
      const env = { DOCKER_HOST: `unix://${dockerd.socket}`, DOCKER_CONFIG: `${t.directory}/dockerd-config` };
      const { code, stdout, stderr } = await runCommand('docker', args, { env });
      if (code !== 0) throw new Error(`docker ${args.join(' ')}: ${stderr}`);
      return stdout.replace(/\n$/, '');
    };
    await docker('load', '-i', archive);
    const theirs = await probeMatrix({ host, docker }, () => true);
    const cell = (source: (typeof sources)[number], target: (typeof targets)[number]): string => {
      const sides = (['tcp', 'udp'] as const).map((transport) => {
        const key = questionKey(source, target, transport);
        const [a = '-', b = '-'] = [ours.get(key), theirs.get(key)];
        return a === b ? a : `**${a}, dockerd: ${b}**`;
      });
      return sides[0] === sides[1] ? `${sides[0]}` : `tcp ${sides[0]}; udp ${sides[1]}`;
    };
    const rows = sources.map(
      (source) => `| ${[source, ...targets.map((target) => cell(source, target))].join(' | ')} |`,
    );
    process.stdout.write([`| from | ${targets.join(' | ')} |`, `| --- | --- | --- | --- |`, ...rows].join('\n') + '\n');
  });
});
