import { describe, expect, it } from 'vitest';
import { ProjectQuotas } from './project-quota.js';

const hex = (bytes: Uint8Array, length = bytes.length): string =>
  Buffer.from(bytes.subarray(0, length)).toString('hex');

/** A file system that notes what it is asked. */
function machine(answer: { flags?: number; project?: number; quotaFlags?: number; failsWith?: number } = {}) {
  const calls: unknown[][] = [];
  const quotas = new ProjectQuotas({
    ioctl: (fd, request, argument) => {
      calls.push([fd, request.toString(16), hex(argument)]);
      if (request === 0x801c581fn) {
        const view = Buffer.from(argument.buffer, argument.byteOffset, argument.length);
        view.writeUInt32LE(answer.flags ?? 0, 0);
        view.writeUInt32LE(answer.project ?? 0, 12);
      }
      return 0;
    },
    quotactl: (fd, command, id, argument) => {
      calls.push([fd, command.toString(16), id, hex(argument, 64)]);
      const view = Buffer.from(argument.buffer, argument.byteOffset, argument.length);
      if (command === 0x580502) view.writeUInt16LE(answer.quotaFlags ?? 0, 2);
      if (command === 0x580302) {
        view.writeBigUInt64LE(16n, 8);
        view.writeBigUInt64LE(3n, 40);
        view.writeBigUInt64LE(2n, 48);
      }
      return answer.failsWith ?? 0;
    },
  });
  return { quotas, calls };
}

// Expected bytes: struct fsxattr of linux/fs.h, struct fs_disk_quota of linux/dqblk_xfs.h on a little-endian machine.
describe('project quotas', () => {
  it('keep the other flags of a file when they give it to a project', () => {
    const { quotas, calls } = machine({ flags: 0x800000f0, project: 7 });
    expect(quotas.projectOf(5)).toEqual({ id: 7, isInherited: false });
    quotas.setProject(5, { id: 0x01020304, isInherited: true });
    expect(calls.at(-1)).toEqual([5, '401c5820', `f0020080${'00'.repeat(8)}04030201${'00'.repeat(12)}`]);
    quotas.setProject(5, { id: 0, isInherited: false });
    expect(calls.at(-1)).toEqual([5, '401c5820', `f0000080${'00'.repeat(24)}`]);
  });

  it('set hard and soft limits in blocks of 512 bytes, rounded up', () => {
    const { quotas, calls } = machine();
    quotas.setLimit(6, 9, 10n << 20n);
    expect(calls).toEqual([[6, '580402', 9, `01020c0009000000${'0050000000000000'.repeat(2)}${'00'.repeat(40)}`]]);
    quotas.setLimit(6, 9, 513n);
    expect(String(calls.at(-1)?.[3])).toContain(`0200000000000000`.repeat(2));
    quotas.setLimit(6, 9, 0n);
    expect(calls.at(-1)).toEqual([6, '580402', 9, `01020c0009000000${'00'.repeat(56)}`]);
  });

  it('are there only where they are enforced', () => {
    expect(machine({ quotaFlags: 1 << 5 }).quotas.areEnforced(3)).toBe(true);
    expect(machine({ quotaFlags: 1 << 4 }).quotas.areEnforced(3)).toBe(false);
    expect(machine({ quotaFlags: 1 << 5, failsWith: -1 }).quotas.areEnforced(3)).toBe(false);
    expect(machine().quotas.usage(3, 4)).toEqual({ limitBytes: 8192n, usedBytes: 1536n, files: 2n });
  });
});
