import { describe, expect, it } from 'vitest';
import { container, image } from './index.js';
import { encodeMessage } from './message-writer.js';

describe('the serializer of the services', () => {
  it.each([0, 10, 16 * 1024 - 1, 16 * 1024, 300_000])('writes a field of %d bytes as the plain one does', (length) => {
    const message = container.StreamLogsResponse.fromPartial({
      output: Buffer.alloc(length, 'x'),
      position: '12:34:2026-01-02T03:04:05Z',
      attached: { containerId: 'c'.repeat(64), tty: true },
    });
    const bytes = encodeMessage(container.StreamLogsResponse, message);
    expect(bytes.equals(container.StreamLogsResponse.encode(message).finish())).toBe(true);
    expect(container.StreamLogsResponse.decode(bytes)).toEqual(message);
  });

  it('is used by the services', () => {
    const { responseSerialize } = container.ContainerServiceService.streamLogs;
    const message = container.StreamLogsResponse.fromPartial({ output: Buffer.alloc(40_000, 'y'), position: 'p' });
    expect(container.StreamLogsResponse.decode(responseSerialize(message))).toEqual(message);
    expect(image.ImageServiceService.listImages.requestSerialize(image.ListImagesRequest.fromPartial({}))).toHaveLength(
      0,
    );
  });
});
