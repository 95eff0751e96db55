import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isEngineError } from '@flotilla/errors';
import { describe, expect, it } from 'vitest';
import { canFollow, type ContainerState, containerStates, isLive, isNotRunning, transition } from './state.js';

describe('container state machine', () => {
  it('walks the life of a container that is run and removed', () => {
    let state = transition('creating', 'created');
    for (const next of [
      'running',
      'paused',
      'running',
      'restarting',
      'running',
      'exited',
      'running',
      'exited',
      'removing',
    ] as const) {
      state = transition(state, next);
    }
    expect(state).toBe('removing');
  });

  it('refuses what cannot happen', () => {
    const refused = (from: (typeof containerStates)[number], to: (typeof containerStates)[number]): boolean => {
      try {
        transition(from, to);
        return false;
      } catch (error) {
        return isEngineError(error, 'conflict');
      }
    };
    expect(refused('removing', 'running')).toBe(true);
    expect(refused('dead', 'running')).toBe(true);
    expect(refused('creating', 'running')).toBe(true);
    expect(refused('created', 'paused')).toBe(true);
    expect(refused('exited', 'paused')).toBe(true);
  });

  it('lets every state be removed in the end', () => {
    // By steps that are the engine's own: what runs is killed first, what waits for its restart is stopped.
    const ends = (state: ContainerState): boolean =>
      state === 'removing' ||
      canFollow(state, 'removing') ||
      (['exited', 'dead'] as const).some((next) => canFollow(state, next) && canFollow(next, 'removing'));
    expect(containerStates.filter((state) => !ends(state))).toEqual([]);
  });

  it('lets what rests be put into quarantine and out of it, but not what runs', () => {
    expect(containerStates.filter((state) => canFollow(state, 'dead'))).toEqual([
      ...['creating', 'created', 'restarting', 'removing', 'exited'],
    ]);
    expect(canFollow('dead', 'created') && canFollow('dead', 'exited')).toBe(true);
  });

  it('is written down in docs/architecture.md', () => {
    const text = readFileSync(join(import.meta.dirname, '../../../../docs/architecture.md'), 'utf8');
    const states = (list: string): string[] => list.trim().split(', ');
    const told = [...text.matchAll(/^\| ([a-z, ]+) → ([a-z, ]+?) +\|/gm)].flatMap(([, from = '', to = '']) =>
      states(from).flatMap((one) => states(to).map((next) => `${one} → ${next}`)),
    );
    const all = containerStates.flatMap((from) =>
      containerStates.filter((to) => canFollow(from, to)).map((to) => `${from} → ${to}`),
    );
    expect(told.sort()).toEqual(all.sort());
  });

  it('counts running and paused as live, and waits for a restarting one', () => {
    expect(containerStates.filter(isLive)).toEqual(['running', 'paused']);
    expect(containerStates.filter(isNotRunning)).toEqual(['creating', 'created', 'removing', 'exited', 'dead']);
  });
});
