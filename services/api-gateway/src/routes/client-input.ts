/** What a client sends, over all calls that it goes to. */
export class ClientInput {
  readonly #source: AsyncIterator<Buffer>;
  /** Asked of the client and not given to a call yet. */
  #pending: Promise<IteratorResult<Buffer>> | undefined;
  /** The present one. */
  #call = 0;
  #endWait: () => void = () => undefined;
  #sent = 0;
  #taken = 0;
  /** Sent before the present call. */
  #before = 0;

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** Whether all that was sent has reached the container. */
  get isSettled(): boolean {
    return this.#sent === this.#taken;
  }

  noteTaken(inThisCall: number): void {
    this.#taken = this.#before + inThisCall;
  }

  /** For the present call, until it is over or the client closes its side. */
  chunks(): AsyncGenerator<Buffer> {
    return this.#chunksOf(this.#call);
  }

  /** The call is over: what the client sends from now on is for the next one. */
  letGo(): void {
    this.#call++;
    this.#before = this.#sent;
    this.#endWait();
  }

  async *#chunksOf(call: number): AsyncGenerator<Buffer> {
    while (call === this.#call) {
      const pending = (this.#pending ??= this.#ask());
      // A promise of its own for each chunk: one that outlives many, waited for beside each of them, would keep them all.
      const next = await new Promise<IteratorResult<Buffer> | undefined>((resolve, reject) => {
        this.#endWait = () => resolve(undefined);
        pending.then(resolve, reject);
      });
      if (next === undefined || next.done === true || call !== this.#call) return;
      this.#pending = undefined;
      this.#sent += next.value.length;
      yield next.value;
    }
  }

  #ask(): Promise<IteratorResult<Buffer>> {
    const asked = this.#source.next();
    // Between two calls nobody waits for it; the next one hears of it.
    asked.catch(() => undefined);
    return asked;
  }
}
