import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { closeSync, constants, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { slotBytes } from './blob-writer-protocol.js';
import type { WriterReply, WriterRequest } from './blob-writer-protocol.js';

// Hashes and writes blobs off the main thread: sha256 and write(2) are what bounds a download.

interface OpenBlob {
  readonly fd: number;
  readonly slots: SharedArrayBuffer;
  hash: Hash;
  size: number;
}

const port = parentPort;
if (port === null) throw new Error('blob-download-worker runs as a worker thread only');
const blobs = new Map<number, OpenBlob>();
const buffer = Buffer.allocUnsafe(1 << 20);

function reply(message: WriterReply): void {
  port?.postMessage(message);
}

/** Open a partial file and hash what is there; a missing one is made. */
function open(path: string, slots: SharedArrayBuffer): OpenBlob {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  const blob: OpenBlob = { fd, slots, hash: createHash('sha256'), size: 0 };
  try {
    for (;;) {
      const count = readSync(fd, buffer, 0, buffer.length, blob.size);
      if (count === 0) return blob;
      blob.hash.update(buffer.subarray(0, count));
      blob.size += count;
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function write(blob: OpenBlob, bytes: Uint8Array): void {
  blob.hash.update(bytes);
  for (let done = 0; done < bytes.length;) {
    done += writeSync(blob.fd, bytes, done, bytes.length - done, blob.size + done);
  }
  blob.size += bytes.length;
}

function close(id: number): void {
  const blob = blobs.get(id);
  blobs.delete(id);
  if (blob !== undefined) closeSync(blob.fd);
}

function handle(message: WriterRequest): void {
  const { id } = message;
  if (message.kind === 'open') {
    const blob = open(message.path, message.slots);
    blobs.set(id, blob);
    reply({ id, kind: 'opened', size: blob.size });
    return;
  }
  const blob = blobs.get(id);
  // After a failed write the main thread still has chunks under way.
  if (blob === undefined) return;
  switch (message.kind) {
    case 'write':
      write(blob, new Uint8Array(blob.slots, message.slot * slotBytes, message.count));
      reply({ id, kind: 'written', slot: message.slot, count: message.count });
      return;
    case 'restart':
      ftruncateSync(blob.fd, 0);
      blob.hash = createHash('sha256');
      blob.size = 0;
      return;
    case 'digest':
      reply({ id, kind: 'digest', hex: blob.hash.copy().digest('hex'), size: blob.size });
      return;
    case 'close':
      close(id);
      reply({ id, kind: 'closed' });
      return;
  }
}

port.on('message', (message: WriterRequest) => {
  try {
    handle(message);
  } catch (error) {
    close(message.id);
    const { code = '', message: text } = error as NodeJS.ErrnoException;
    reply({ id: message.id, kind: 'failed', code, message: text });
  }
});
