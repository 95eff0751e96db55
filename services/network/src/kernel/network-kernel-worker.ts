import { parentPort } from 'node:worker_threads';
import { messageOf } from '@flotilla/errors';
import { KernelState } from './kernel-state.js';
import type { KernelOperations } from './kernel-operations.js';
import type { KernelAnswer, KernelCall } from './kernel-messages.js';

const port = parentPort;
if (port === null) throw new Error('network-kernel-worker runs as a worker thread');

const answer = (message: KernelAnswer): void => port.postMessage(message);
const state: KernelOperations = new KernelState((message, error) =>
  answer({ kind: 'report', message, detail: messageOf(error) }),
);

function run({ operation, argument }: KernelCall): unknown {
  const operations: { [K in keyof KernelOperations]: (argument: never) => unknown } = state;
  return operations[operation](argument as never);
}

port.on('message', (call: KernelCall) => {
  try {
    answer({ kind: 'result', id: call.id, result: run(call) });
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    answer({
      kind: 'error',
      id: call.id,
      message: messageOf(error),
      code,
      stack: error instanceof Error ? (error.stack ?? '') : '',
    });
  }
});
