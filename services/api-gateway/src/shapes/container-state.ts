import { humanDuration, humanDurationHolds } from '@flotilla/docker-api';
import type { ContainerState } from '@flotilla/docker-api';
import { container, timestampToRfc3339Nano } from '@flotilla/proto';
import type { Timestamp } from '@flotilla/proto';

type Status = container.ContainerStatus;
const { ContainerStatus } = container;

const STATUS_NAMES: ReadonlyMap<Status, string> = new Map<Status, string>([
  [ContainerStatus.CREATING, 'created'],
  [ContainerStatus.CREATED, 'created'],
  [ContainerStatus.RUNNING, 'running'],
  [ContainerStatus.PAUSED, 'paused'],
  [ContainerStatus.RESTARTING, 'restarting'],
  [ContainerStatus.REMOVING, 'removing'],
  [ContainerStatus.EXITED, 'exited'],
  [ContainerStatus.DEAD, 'dead'],
]);

/** The word for a state in lists, inspect and filters. */
export const statusName = (status: Status): string => STATUS_NAMES.get(status) ?? 'created';

/** Whether a container counts as running: paused and restarting ones do. */
export const isRunning = (status: Status): boolean =>
  status === ContainerStatus.RUNNING || status === ContainerStatus.PAUSED || status === ContainerStatus.RESTARTING;

/** `State` of `GET /containers/{id}/json`. */
export function stateShape(state: container.ContainerState): ContainerState {
  const { status, health } = state;
  return {
    Status: statusName(status),
    Running: isRunning(status),
    Paused: status === ContainerStatus.PAUSED,
    Restarting: status === ContainerStatus.RESTARTING,
    OOMKilled: state.oomKilled,
    Dead: status === ContainerStatus.DEAD,
    Pid: state.pid,
    ExitCode: state.exitCode,
    Error: state.error,
    StartedAt: timestampToRfc3339Nano(state.startedAt),
    FinishedAt: timestampToRfc3339Nano(state.finishedAt),
    ...(health === undefined
      ? {}
      : {
          Health: {
            Status: health.status,
            FailingStreak: health.failingStreak,
            Log: health.log.map((entry) => ({
              Start: timestampToRfc3339Nano(entry.start),
              End: timestampToRfc3339Nano(entry.end),
              ExitCode: entry.exitCode,
              Output: entry.output,
            })),
          },
        }),
  };
}

/** A text that depends on the time of day, and until when it stays true. */
export interface TimedText {
  readonly text: string;
  /** Milliseconds since the epoch; infinite when the text holds until the state changes. */
  readonly until: number;
}

const millis = (timestamp: Timestamp): number => Number(timestamp.seconds) * 1000 + timestamp.nanos / 1e6;

function since(timestamp: Timestamp, now: number, wrap: (duration: string) => string): TimedText {
  const elapsed = now - millis(timestamp);
  return { text: wrap(humanDuration(elapsed)), until: now + humanDurationHolds(elapsed) };
}

const lasting = (text: string): TimedText => ({ text, until: Number.POSITIVE_INFINITY });

/** `Status` of `GET /containers/json`, for example `Up 5 seconds (healthy)`. */
export function statusText(state: container.ContainerState, now: number): TimedText {
  const { status, startedAt, finishedAt, exitCode, health } = state;
  switch (status) {
    case ContainerStatus.RUNNING:
    case ContainerStatus.PAUSED: {
      const word =
        status === ContainerStatus.PAUSED
          ? 'Paused'
          : health === undefined || health.status === 'none'
            ? ''
            : healthText(health.status);
      const suffix = word === '' ? '' : ` (${word})`;
      return startedAt === undefined
        ? lasting(`Up${suffix}`)
        : since(startedAt, now, (duration) => `Up ${duration}${suffix}`);
    }
    case ContainerStatus.RESTARTING:
      return finishedAt === undefined
        ? lasting(`Restarting (${exitCode})`)
        : since(finishedAt, now, (duration) => `Restarting (${exitCode}) ${duration} ago`);
    case ContainerStatus.REMOVING:
      return lasting('Removal In Progress');
    case ContainerStatus.DEAD:
      return lasting('Dead');
    case ContainerStatus.EXITED:
      return finishedAt === undefined
        ? lasting('')
        : since(finishedAt, now, (duration) => `Exited (${exitCode}) ${duration} ago`);
    default:
      return lasting('Created');
  }
}

const healthText = (status: string): string => (status === 'starting' ? 'health: starting' : status);
