import { container, image } from '@flotilla/proto';
import { describe, expect, it } from 'vitest';
import { commandLine, mergeConfig } from './config-merge.js';

const user = (fields: Partial<container.ContainerConfig>) => container.ContainerConfig.fromPartial(fields);
const from = image.ImageConfig.fromPartial({
  entrypoint: ['/entry'],
  hasEntrypoint: true,
  cmd: ['serve'],
  hasCmd: true,
  env: ['PATH=/bin', 'MODE=image'],
  labels: { a: 'image', b: 'image' },
  exposedPorts: ['80/tcp'],
  volumes: ['/data'],
  user: 'app',
  workingDir: '/srv',
  stopSignal: 'SIGQUIT',
});

describe('mergeConfig', () => {
  it('takes over what the user left out', () => {
    const merged = mergeConfig(
      user({ env: ['MODE=mine', 'X=1'], labels: { b: 'mine' }, exposedPorts: ['443', '7-8/udp'] }),
      from,
    );
    expect(merged).toMatchObject({
      entrypoint: ['/entry'],
      cmd: ['serve'],
      env: ['MODE=mine', 'X=1', 'PATH=/bin'],
      labels: { a: 'image', b: 'mine' },
      exposedPorts: ['7/udp', '8/udp', '80/tcp', '443/tcp'],
      volumes: ['/data'],
      user: 'app',
      workingDir: '/srv',
      stopSignal: 'SIGQUIT',
    });
  });

  it.each([
    [{ cmd: ['x'] }, ['/entry', 'x']],
    [{ entrypoint: ['/e'] }, ['/e']],
    [{ entrypoint: ['/e'], cmd: ['x'] }, ['/e', 'x']],
    [{ entrypoint: [''], cmd: ['x'] }, ['x']],
    [{ entrypoint: [], hasEntrypoint: true }, ['serve']],
    [{}, ['/entry', 'serve']],
  ])('puts the command line of %j together', (fields, expected) => {
    const { path, args } = commandLine(mergeConfig(user(fields), from));
    expect([path, ...args]).toEqual(expected);
  });

  it('needs a command', () => {
    expect(() => mergeConfig(user({}), undefined)).toThrow('no command specified');
    expect(() => mergeConfig(user({ entrypoint: [''] }), from)).toThrow('no command specified');
  });

  it('joins health checks field by field', () => {
    const healthcheck = {
      test: ['CMD', 'a'],
      intervalNs: 5n,
      timeoutNs: 6n,
      retries: 7n,
      startPeriodNs: 0n,
      startIntervalNs: 0n,
    };
    const merged = mergeConfig(user({ healthcheck: { ...healthcheck, test: [], intervalNs: 1n, timeoutNs: 0n } }), {
      ...from,
      healthcheck,
    });
    expect(merged.healthcheck).toEqual({ ...healthcheck, intervalNs: 1n });
  });
});
