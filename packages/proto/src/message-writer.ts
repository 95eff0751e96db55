import { BinaryWriter } from '@bufbuild/protobuf/wire';

/** Bytes fields from this size on are not copied into the writer's own buffer, which grows by doubling. */
const largeBytes = 16 * 1024;

/** Writes one message. A large bytes field of the message itself is copied once, into the result. */
class MessageWriter extends BinaryWriter {
  readonly #parts: Uint8Array[] = [];
  #depth = 0;

  override bytes(value: Uint8Array): this {
    if (this.#depth > 0 || value.byteLength < largeBytes) return super.bytes(value);
    this.uint32(value.byteLength);
    this.#parts.push(super.finish(), value);
    return this;
  }

  override fork(): this {
    this.#depth += 1;
    return super.fork();
  }

  override join(): this {
    this.#depth -= 1;
    return super.join();
  }

  message(): Buffer {
    const rest = super.finish();
    if (this.#parts.length > 0) return Buffer.concat([...this.#parts, rest]);
    return Buffer.from(rest.buffer, rest.byteOffset, rest.byteLength);
  }
}

/** The serializer of the generated services. */
export function encodeMessage<T>(type: { encode(message: T, writer: BinaryWriter): BinaryWriter }, message: T): Buffer {
  const writer = new MessageWriter();
  type.encode(message, writer);
  return writer.message();
}
