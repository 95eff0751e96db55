import { Readable } from 'node:stream';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FrameDecoder, StdStream, decodeFrames, encodeFrame } from './stdcopy.js';

test('a frame is the 8-byte header and its payload', () => {
  expect([...encodeFrame(StdStream.stderr, Buffer.from('no'))]).toEqual([2, 0, 0, 0, 0, 0, 0, 2, 0x6e, 0x6f]);
  expect([...encodeFrame(StdStream.stderr, Buffer.alloc(0x102, 7))].slice(0, 9)).toEqual([2, 0, 0, 0, 0, 0, 1, 2, 7]);
});

test('frames survive any cut of the stream', () => {
  const frame = fc.record({
    stream: fc.constantFrom(StdStream.stdout, StdStream.stderr),
    payload: fc.uint8Array({ maxLength: 40 }),
  });
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 12 }), fc.array(fc.nat({ max: 20 }), { minLength: 1 }), (frames, cuts) => {
      const whole = Buffer.concat(frames.map(({ stream, payload }) => encodeFrame(stream, payload)));
      const decoder = new FrameDecoder();
      const out: Record<number, number[]> = { 1: [], 2: [] };
      for (let offset = 0, i = 0; offset < whole.length; i++) {
        const step = 1 + (cuts[i % cuts.length] ?? 0);
        for (const piece of decoder.decode(whole.subarray(offset, offset + step)))
          out[piece.stream]?.push(...piece.payload);
        offset += step;
      }
      decoder.end();
      for (const stream of [1, 2])
        expect(out[stream]).toEqual(frames.filter((f) => f.stream === stream).flatMap((f) => [...f.payload]));
    }),
  );
});

test('a cut header and an unknown stream are refused', async () => {
  const read = async (bytes: Buffer): Promise<number> => {
    let frames = 0;
    for await (const frame of decodeFrames(Readable.from([bytes]))) frames += frame.payload.length;
    return frames;
  };
  await expect(read(Buffer.from([1, 0, 0]))).rejects.toThrow('inside a frame');
  await expect(read(Buffer.from('HTTP/1.1 400'))).rejects.toThrow('Unrecognized input header: 72');
});
