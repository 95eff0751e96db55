import type { LogSinkConfig } from '../log-config.js';
import type { EntryEncoder } from './entry-encoder.js';
import type { DecodeOptions, FrameDecoder } from './frame-decoder.js';
import { JsonLineDecoder, timeOfLine } from './json-line-decoder.js';
import { JsonLineEncoder } from './json-line-encoder.js';
import { LocalLineDecoder, LocalLineEncoder, timeOfLocalLine } from './local-line.js';

/** How entries lie in a log's files: one per line, with its time at the end. */
export interface LogFormat {
  encoder(output: Buffer): EntryEncoder;
  decoder(options: DecodeOptions, batchBytes: number): FrameDecoder;
  /** The time of the entry whose newline is at `lineEnd`, as it is written; '' when it has none. */
  timeOf(source: Buffer, lineEnd: number): string;
}

/** Docker's json-file format for its driver, the compact one for everything else that is kept in files. */
export function formatOf({ driver, attributes }: Pick<LogSinkConfig, 'driver' | 'attributes'>): LogFormat {
  if (driver === 'json-file') {
    return {
      encoder: (output) => new JsonLineEncoder(attributes, output),
      decoder: (options, batchBytes) => new JsonLineDecoder(options, batchBytes),
      timeOf: timeOfLine,
    };
  }
  return {
    encoder: (output) => new LocalLineEncoder(output),
    decoder: (options, batchBytes) => new LocalLineDecoder(options, batchBytes, attributes),
    timeOf: timeOfLocalLine,
  };
}
