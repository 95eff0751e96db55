/** What an archive may be compressed with, as far as every reader of layers knows it. */
export type TarCompression = 'gzip' | 'zstd' | 'none';

/** How the bytes are compressed, by their first four: what a media type says is not always so. */
export function compressionOf(head: Uint8Array): TarCompression {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip';
  const isZstd = head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd;
  // A zstd stream may begin with a skippable frame (zstd:chunked does not, others do).
  const isSkippable = ((head[0] ?? 0) & 0xf0) === 0x50 && head[1] === 0x2a && head[2] === 0x4d && head[3] === 0x18;
  return isZstd || isSkippable ? 'zstd' : 'none';
}
