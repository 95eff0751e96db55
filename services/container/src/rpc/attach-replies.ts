import type { container } from '@flotilla/proto';
import type { AttachSession } from '../runtime/runtime.js';
import { asBuffer } from './as-buffer.js';

type Response = container.AttachContainerResponse;

/** A session's output, and in between how much of the input has reached the container: what the caller may not send again. */
export class AttachReplies {
  readonly #session: Pick<AttachSession, 'output' | 'position' | 'detach'>;
  #taken = 0n;
  #acknowledged = 0n;
  /** Output that was asked for has come, or has failed to. */
  #come: Promise<IteratorResult<Uint8Array>> | undefined;
  #wake: () => void = () => undefined;

  constructor(session: Pick<AttachSession, 'output' | 'position' | 'detach'>) {
    this.#session = session;
  }

  /** So much more of the input has reached the container. */
  addTaken(bytes: number): void {
    this.#taken += BigInt(bytes);
    this.#wake();
  }

  /** One piece of output is asked for at a time, when the one before was taken. */
  async *messages(): AsyncGenerator<Response, void, undefined> {
    const output = this.#session.output[Symbol.asyncIterator]();
    try {
      this.#ask(output);
      for (;;) {
        if (this.#taken > this.#acknowledged) {
          this.#acknowledged = this.#taken;
          yield { frame: { $case: 'stdinTaken', value: this.#acknowledged }, position: '' };
        }
        if (this.#come !== undefined) {
          const piece = await this.#come;
          if (piece.done === true) return;
          yield { frame: { $case: 'output', value: asBuffer(piece.value) }, position: this.#session.position };
          this.#ask(output);
        }
        await this.#something();
      }
    } finally {
      this.#session.detach();
      await output.return?.();
    }
  }

  #ask(output: AsyncIterator<Uint8Array>): void {
    this.#come = undefined;
    const asked = output.next();
    const note = (): void => {
      this.#come = asked;
      this.#wake();
    };
    asked.then(note, note);
  }

  /** Settles when there is something to pass on. Each wait has a promise of its own: a race with a lasting one would leave something of each in that. */
  #something(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      if (this.#come !== undefined || this.#taken > this.#acknowledged) resolve();
    });
  }
}
