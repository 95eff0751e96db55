import type { KernelOperations } from './kernel-operations.js';

export interface KernelCall {
  id: number;
  operation: keyof KernelOperations;
  argument: unknown;
}

export type KernelAnswer =
  | { kind: 'result'; id: number; result: unknown }
  | { kind: 'error'; id: number; message: string; code: string; stack: string }
  | { kind: 'report'; message: string; detail: string };
