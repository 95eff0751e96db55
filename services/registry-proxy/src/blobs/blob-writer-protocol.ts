/** Bytes handed to the worker in one message: a slot of the memory that both share. */
export const slotBytes = 512 * 1024;

/** To blob-download-worker. */
export type WriterRequest =
  | { readonly id: number; readonly kind: 'open'; readonly path: string; readonly slots: SharedArrayBuffer }
  | { readonly id: number; readonly kind: 'write'; readonly slot: number; readonly count: number }
  | { readonly id: number; readonly kind: 'restart' }
  | { readonly id: number; readonly kind: 'digest' }
  | { readonly id: number; readonly kind: 'close' };

/** From blob-download-worker. After `failed` the file is closed. */
export type WriterReply =
  | { readonly id: number; readonly kind: 'opened'; readonly size: number }
  /** The slot may be filled again. */
  | { readonly id: number; readonly kind: 'written'; readonly slot: number; readonly count: number }
  | { readonly id: number; readonly kind: 'digest'; readonly hex: string; readonly size: number }
  | { readonly id: number; readonly kind: 'closed' }
  | { readonly id: number; readonly kind: 'failed'; readonly code: string; readonly message: string };
