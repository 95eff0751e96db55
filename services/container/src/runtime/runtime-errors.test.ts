import { describe, expect, it } from 'vitest';
import { DetachScanner } from './detach-scanner.js';
import { exitCodeOfRuntimeError, runtimeFailure } from './runtime-errors.js';
import { parseShimAddress } from './shim-client.js';
import { TtrpcError } from './ttrpc-client.js';

const CREATE = 'OCI runtime create failed: runc create failed: unable to start container process:';

describe('errors of the runtime', () => {
  it.each([
    [`${CREATE} exec: "nope": executable file not found in $PATH: unknown`, 127],
    [`${CREATE} exec: "/nope": stat /nope: no such file or directory: unknown`, 127],
    [`${CREATE} exec: "/etc": permission denied: unknown`, 126],
    [`${CREATE} exec: "/x": is a directory: unknown`, 126],
    [`${CREATE} error mounting "/no/such" to rootfs at "/x": stat /no/such: no such file or directory: unknown`, 125],
    [`${CREATE} error during container init: chdir to cwd ("/zz"): no such file or directory: unknown`, 127],
    [`${CREATE} chdir to cwd ("/zz") set in config.json failed: permission denied: unknown`, 126],
    ['unable to retrieve OCI runtime error (...): exec: "x": executable file not found in $PATH: unknown', 125],
  ])('%s: %i', (text, exitCode) => {
    expect(exitCodeOfRuntimeError(text)).toBe(exitCode);
    expect(runtimeFailure(new TtrpcError(2, text))).toMatchObject({
      exitCode,
      message: `failed to create task for container: failed to create shim task: ${text}`,
    });
  });

  it('hint at a file mounted onto a directory', () => {
    const { message } = runtimeFailure(new TtrpcError(2, `${CREATE} error mounting "/a": not a directory: unknown`));
    expect(message).toContain('Are you trying to mount a directory onto a file (or vice-versa)?');
  });
});

describe('addresses of shims', () => {
  it('are read as versions 1 and 2 print them', () => {
    expect(parseShimAddress('unix:///run/containerd/s/ab\n')).toEqual({
      socketPath: '/run/containerd/s/ab',
      service: 'containerd.task.v2.Task',
    });
    expect(parseShimAddress('{"version":3,"address":"unix:///run/containerd/s/ab","protocol":"ttrpc"}')).toEqual({
      socketPath: '/run/containerd/s/ab',
      service: 'containerd.task.v3.Task',
    });
    expect(() => parseShimAddress('{"version":3,"address":"x","protocol":"grpc"}')).toThrow('speaks grpc');
    expect(() => parseShimAddress('')).toThrow('no address');
  });
});

describe('detach keys', () => {
  it('are found over chunks; what only looked like them is passed on', () => {
    const scanner = new DetachScanner(Uint8Array.of(16, 17));
    const scan = (...bytes: number[]) => {
      const { pass, isDetached } = scanner.scan(Uint8Array.from(bytes));
      return [[...pass], isDetached];
    };
    expect(scan(1, 16)).toEqual([[1], false]);
    expect(scan(2)).toEqual([[16, 2], false]);
    expect(scan(16)).toEqual([[], false]);
    expect(scan(16)).toEqual([[16], false]);
    expect(scan(17, 5)).toEqual([[], true]);
  });
});
