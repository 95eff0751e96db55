/** What a message of an upload carries at least, but for the last: each costs the same, however little is in it. */
const PART_BYTES = 256 * 1024;

/** The same bytes in parts of at least 256 KiB; clients send 32 KiB at a time. For bodies whose parts nobody waits for. */
export async function* inLargeParts(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held: Buffer[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    held.push(chunk);
    length += chunk.length;
    if (length < PART_BYTES) continue;
    yield Buffer.concat(held, length);
    held = [];
    length = 0;
  }
  if (length > 0) yield Buffer.concat(held, length);
}
