import { execFileSync } from 'node:child_process';

/** Node has zstd of its own only from 22.15 on. */
export const zstdCompressSync = (bytes: Buffer): Buffer =>
  execFileSync('zstd', ['-q', '-c'], { input: bytes, maxBuffer: 1 << 30, stdio: ['pipe', 'pipe', 'pipe'] });
