import { closeSync, constants, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { MS_NODEV, MS_NOSUID, hasCode, mount, umountAll } from '@flotilla/sys';

/** A file system whose server does not answer: whoever looks into it waits in the kernel, as with an NFS server that is gone. */
export interface SilentFileSystem extends Disposable {
  readonly target: string;
  /** Answer what was asked until now and from now on: every name is an empty directory. */
  speak(): void;
}

const FUSE_LOOKUP = 1;
const FUSE_GETATTR = 3;
const FUSE_INIT = 26;
const FUSE_OPENDIR = 27;
const FUSE_READDIR = 28;
const FUSE_RELEASEDIR = 29;
const ENOSYS = 38;
const outHeaderBytes = 16;

/** Mount one (FUSE) at `target`, which is made. Needs root and /dev/fuse. */
export function mountSilentFileSystem(target: string): SilentFileSystem {
  mkdirSync(target, { recursive: true });
  const fd = openSync('/dev/fuse', constants.O_RDWR | constants.O_NONBLOCK);
  let timer: NodeJS.Timeout | undefined;
  mount('silent', target, 'fuse', MS_NOSUID | MS_NODEV, `fd=${fd},rootmode=40000,user_id=0,group_id=0`);
  return {
    target,
    speak() {
      timer = setInterval(() => answerAll(fd), 5);
    },
    [Symbol.dispose]() {
      clearInterval(timer);
      // Everybody who waits gets ECONNABORTED.
      closeSync(fd);
      umountAll(target);
    },
  };
}

function answerAll(fd: number): void {
  const request = Buffer.alloc(1 << 17);
  for (;;) {
    try {
      readSync(fd, request);
    } catch (error) {
      if (hasCode(error, 'EAGAIN', 'ENODEV')) return;
      throw error;
    }
    const reply = answerTo(request.readUInt32LE(4), request.readBigUInt64LE(16));
    const header = Buffer.alloc(outHeaderBytes);
    header.writeUInt32LE(outHeaderBytes + (reply?.length ?? 0), 0);
    header.writeInt32LE(reply === undefined ? -ENOSYS : 0, 4);
    request.copy(header, 8, 8, 16);
    try {
      writeSync(fd, reply === undefined ? header : Buffer.concat([header, reply]));
    } catch (error) {
      // Whoever asked has given up.
      if (!hasCode(error, 'ENOENT')) throw error;
    }
  }
}

let lastNode = 1n;

// linux/fuse.h: fuse_init_out, fuse_open_out, fuse_entry_out, fuse_attr_out.
function answerTo(opcode: number, node: bigint): Buffer | undefined {
  switch (opcode) {
    case FUSE_INIT: {
      const out = Buffer.alloc(64);
      out.writeUInt32LE(7, 0);
      out.writeUInt32LE(31, 4);
      out.writeUInt32LE(4096, 20);
      return out;
    }
    case FUSE_OPENDIR:
      return Buffer.alloc(16);
    case FUSE_READDIR:
    case FUSE_RELEASEDIR:
      return Buffer.alloc(0);
    case FUSE_GETATTR:
      return Buffer.concat([Buffer.alloc(16), directoryAttributes(node)]);
    case FUSE_LOOKUP: {
      lastNode += 1n;
      const entry = Buffer.alloc(40);
      entry.writeBigUInt64LE(lastNode, 0);
      return Buffer.concat([entry, directoryAttributes(lastNode)]);
    }
    default:
      return undefined;
  }
}

function directoryAttributes(node: bigint): Buffer {
  const attributes = Buffer.alloc(88);
  attributes.writeBigUInt64LE(node, 0);
  attributes.writeUInt32LE(constants.S_IFDIR | 0o755, 60);
  attributes.writeUInt32LE(2, 64);
  return attributes;
}
