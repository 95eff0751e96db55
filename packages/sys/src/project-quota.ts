import { type Call, bind, bindSyscall, checkResult } from './libc.js';

// linux/fs.h: struct fsxattr is five 32-bit numbers (flags, extent size, extents, project, copy-on-write extent size) and eight spare bytes.
const FS_IOC_FSGETXATTR = 0x801c581fn;
const FS_IOC_FSSETXATTR = 0x401c5820n;
const FS_XFLAG_PROJINHERIT = 0x200;
const fsxattrBytes = 28;
const fsxattrFlags = 0;
const fsxattrProject = 12;

// linux/quota.h, linux/dqblk_xfs.h: the commands of XFS, which ext4 answers as well.
const PRJQUOTA = 2;
const command = (number: number): number => (((0x58 << 8) + number) << 8) | PRJQUOTA;
const Q_XGETQUOTA = command(3);
const Q_XSETQLIM = command(4);
const Q_XGETQSTAT = command(5);
const FS_QUOTA_PDQ_ENFD = 1 << 5;
const FS_DQUOT_VERSION = 1;
const FS_PROJ_QUOTA = 2;
const FS_DQ_BSOFT = 1 << 2;
const FS_DQ_BHARD = 1 << 3;
/** What limits are counted in. */
const basicBlock = 512n;
const diskQuotaBytes = 112;
const quotaStatBytes = 128;

/** The calls behind this module. */
export interface QuotaCalls {
  ioctl: Call<[number, bigint, Uint8Array]>;
  /** quotactl_fd(2): descriptor, command, id, what it points to. */
  quotactl: Call<[number, number, number, Uint8Array]>;
}

const kernel: QuotaCalls = {
  ioctl: bind('int ioctl(int fd, uint64_t request, void *argument)'),
  // The number is the same on every architecture.
  quotactl: bindSyscall(443, ['unsigned int', 'uint32_t', 'uint32_t', 'void *']),
};

/** Which project a file belongs to, and whether what is made in it (a directory) does as well. */
export interface FileProject {
  id: number;
  isInherited: boolean;
}

export interface ProjectUsage {
  limitBytes: bigint;
  usedBytes: bigint;
  files: bigint;
}

/** Project quotas of one file system: xfs mounted with `prjquota`, ext4 made with `project,quota` and mounted with `prjquota`. Descriptors are of any file in it. */
export class ProjectQuotas {
  readonly #calls: QuotaCalls;

  constructor(calls: QuotaCalls = kernel) {
    this.#calls = calls;
  }

  /** Whether limits are enforced. */
  areEnforced(fd: number): boolean {
    const stat = Buffer.alloc(quotaStatBytes);
    stat.writeInt8(FS_DQUOT_VERSION, 0);
    if (this.#calls.quotactl(fd, Q_XGETQSTAT, 0, stat) < 0) return false;
    return (stat.readUInt16LE(2) & FS_QUOTA_PDQ_ENFD) !== 0;
  }

  /** @throws SysError `ENOTTY` or `EOPNOTSUPP` where files have no projects */
  projectOf(fd: number): FileProject {
    const attributes = this.#attributes(fd);
    return {
      id: attributes.readUInt32LE(fsxattrProject),
      isInherited: (attributes.readUInt32LE(fsxattrFlags) & FS_XFLAG_PROJINHERIT) !== 0,
    };
  }

  /** Of a directory with `isInherited`: what is made in it from now on belongs to the project too. */
  setProject(fd: number, { id, isInherited }: FileProject): void {
    const attributes = this.#attributes(fd);
    const flags = attributes.readUInt32LE(fsxattrFlags);
    attributes.writeUInt32LE(
      (isInherited ? flags | FS_XFLAG_PROJINHERIT : flags & ~FS_XFLAG_PROJINHERIT) >>> 0,
      fsxattrFlags,
    );
    attributes.writeUInt32LE(id, fsxattrProject);
    checkResult(this.#calls.ioctl(fd, FS_IOC_FSSETXATTR, attributes), `set project ${id}`);
  }

  /** What the files of a project may take together; 0: as much as they like. */
  setLimit(fd: number, id: number, bytes: bigint): void {
    const quota = Buffer.alloc(diskQuotaBytes);
    const blocks = (bytes + basicBlock - 1n) / basicBlock;
    quota.writeInt8(FS_DQUOT_VERSION, 0);
    quota.writeInt8(FS_PROJ_QUOTA, 1);
    quota.writeUInt16LE(FS_DQ_BHARD | FS_DQ_BSOFT, 2);
    quota.writeUInt32LE(id, 4);
    quota.writeBigUInt64LE(blocks, 8);
    quota.writeBigUInt64LE(blocks, 16);
    checkResult(this.#calls.quotactl(fd, Q_XSETQLIM, id, quota), `limit project ${id}`);
  }

  /** Nothing is known of a project that never had a file or a limit. */
  usage(fd: number, id: number): ProjectUsage {
    const quota = Buffer.alloc(diskQuotaBytes);
    // xfs says ENOENT, ext4 that nothing is used: the buffer is zero for both.
    this.#calls.quotactl(fd, Q_XGETQUOTA, id, quota);
    return {
      limitBytes: quota.readBigUInt64LE(8) * basicBlock,
      usedBytes: quota.readBigUInt64LE(40) * basicBlock,
      files: quota.readBigUInt64LE(48),
    };
  }

  #attributes(fd: number): Buffer {
    const attributes = Buffer.alloc(fsxattrBytes);
    checkResult(this.#calls.ioctl(fd, FS_IOC_FSGETXATTR, attributes), 'read the project');
    return attributes;
  }
}
