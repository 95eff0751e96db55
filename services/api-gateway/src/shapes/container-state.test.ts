import { container } from '@flotilla/proto';
import { expect, test } from 'vitest';
import { statusText } from './container-state.js';

const { ContainerStatus } = container;
const now = 1_700_000_000_000;
const ago = (seconds: number): { seconds: bigint } => ({ seconds: BigInt(now / 1000 - seconds) });
const text = (state: Parameters<typeof container.ContainerState.fromPartial>[0]): string =>
  statusText(container.ContainerState.fromPartial(state), now).text;

test.each([
  ['Created', { status: ContainerStatus.CREATED }],
  ['Up 5 seconds', { status: ContainerStatus.RUNNING, startedAt: ago(5) }],
  [
    'Up About a minute (health: starting)',
    { status: ContainerStatus.RUNNING, startedAt: ago(90), health: { status: 'starting' } },
  ],
  ['Up 2 hours (healthy)', { status: ContainerStatus.RUNNING, startedAt: ago(7200), health: { status: 'healthy' } }],
  ['Up Less than a second (Paused)', { status: ContainerStatus.PAUSED, startedAt: ago(0) }],
  [
    'Restarting (1) 1 second ago',
    { status: ContainerStatus.RESTARTING, exitCode: 1, startedAt: ago(9), finishedAt: ago(1) },
  ],
  [
    'Exited (137) 3 days ago',
    { status: ContainerStatus.EXITED, exitCode: 137, startedAt: ago(9), finishedAt: ago(86_400 * 3) },
  ],
  ['Removal In Progress', { status: ContainerStatus.REMOVING }],
  ['Dead', { status: ContainerStatus.DEAD }],
])('reads %s', (expected, state) => {
  expect(text(state)).toBe(expected);
});

test('a text tells how long it holds', () => {
  const state = container.ContainerState.fromPartial({ status: ContainerStatus.RUNNING, startedAt: ago(5) });
  const { until } = statusText(state, now + 300);
  expect(until).toBe(now + 1000);
  expect(statusText(state, until).text).toBe('Up 6 seconds');
});
