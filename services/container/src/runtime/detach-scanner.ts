/** Finds the keys that detach in what is typed. Bytes that may begin them are held back until it is clear. Source: moby/term proxy.go. */
export class DetachScanner {
  readonly #keys: Uint8Array;
  #matched = 0;

  constructor(keys: Uint8Array) {
    this.#keys = keys;
  }

  /** What is to be passed on of `chunk`, and whether the keys were typed. */
  scan(chunk: Uint8Array): { pass: Uint8Array; isDetached: boolean } {
    const keys = this.#keys;
    if (keys.length === 0) return { pass: chunk, isDetached: false };
    const pass: number[] = [];
    for (const byte of chunk) {
      if (byte === keys[this.#matched]) {
        this.#matched++;
        if (this.#matched < keys.length) continue;
        this.#matched = 0;
        return { pass: Uint8Array.from(pass), isDetached: true };
      }
      pass.push(...keys.subarray(0, this.#matched));
      this.#matched = 0;
      if (byte === keys[0] && keys.length > 1) this.#matched = 1;
      else pass.push(byte);
    }
    return { pass: Uint8Array.from(pass), isDetached: false };
  }
}
