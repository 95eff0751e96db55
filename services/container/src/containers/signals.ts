import { constants } from 'node:os';
import { invalidArgument } from '@flotilla/errors';

const realTimeMinimum = 34;
const realTimeMaximum = 64;

/**
 * The number of a signal given as dockerd takes it: `9`, `KILL`, `SIGKILL`, `RTMIN+3`, any case.
 *
 * @throws EngineError `invalidArgument` `invalid signal: x`.
 */
export function parseSignal(signal: string): number {
  if (/^\d+$/.test(signal)) {
    const value = Number(signal);
    if (value >= 1 && value <= realTimeMaximum) return value;
    throw invalidArgument(`invalid signal: ${signal}`);
  }
  const name = signal.toUpperCase().replace(/^SIG/, '');
  const known = (constants.signals as Partial<Record<string, number>>)[`SIG${name}`] ?? realTimeSignal(name);
  if (known === undefined) throw invalidArgument(`invalid signal: ${signal}`);
  return known;
}

function realTimeSignal(name: string): number | undefined {
  const match = /^RT(MIN|MAX)(?:([+-])(\d{1,2}))?$/.exec(name);
  if (match === null) return undefined;
  const base = match[1] === 'MIN' ? realTimeMinimum : realTimeMaximum;
  const offset = Number(match[3] ?? 0) * (match[2] === '-' ? -1 : 1);
  const value = base + offset;
  return value >= realTimeMinimum && value <= realTimeMaximum ? value : undefined;
}
