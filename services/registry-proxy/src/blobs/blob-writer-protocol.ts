/** To blob-download-worker. `bytes` are handed over (transferred). */
export type WriterRequest =
  | { readonly id: number; readonly kind: 'open'; readonly path: string }
  | { readonly id: number; readonly kind: 'write'; readonly bytes: Uint8Array }
  | { readonly id: number; readonly kind: 'restart' }
  | { readonly id: number; readonly kind: 'digest' }
  | { readonly id: number; readonly kind: 'close' };

/** From blob-download-worker. After `failed` the file is closed. */
export type WriterReply =
  | { readonly id: number; readonly kind: 'opened'; readonly size: number }
  /** `buffer` is given back to be filled again. */
  | { readonly id: number; readonly kind: 'written'; readonly count: number; readonly buffer: ArrayBuffer }
  | { readonly id: number; readonly kind: 'digest'; readonly hex: string; readonly size: number }
  | { readonly id: number; readonly kind: 'closed' }
  | { readonly id: number; readonly kind: 'failed'; readonly code: string; readonly message: string };
