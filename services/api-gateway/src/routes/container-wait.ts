import { apiVersion } from '@flotilla/docker-api';
import type { ContainerWaited } from '@flotilla/docker-api';
import { invalidArgument, isEngineError } from '@flotilla/errors';
import { container as proto } from '@flotilla/proto';
import type { container } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import { isRunning } from '../shapes/container-state.js';
import type { GatewayContext } from './gateway-context.js';
import { resumed } from './resumed-stream.js';

const CONDITIONS: ReadonlyMap<string, container.WaitCondition> = new Map<string, container.WaitCondition>([
  ['', proto.WaitCondition.NOT_RUNNING],
  ['not-running', proto.WaitCondition.NOT_RUNNING],
  ['next-exit', proto.WaitCondition.NEXT_EXIT],
  ['removed', proto.WaitCondition.REMOVED],
]);

/**
 * `POST /containers/{id}/wait`: the head of the answer goes out when the wait is known to the owner, the body at its end.
 *
 * Goes on when the owner is started again: what ended meanwhile is told all the same.
 */
export async function waitForContainer({ peers, model }: GatewayContext, call: ApiCall): Promise<void> {
  const word = call.version < apiVersion(1, 30) ? '' : (call.query.get('condition') ?? '');
  const condition = CONDITIONS.get(word);
  if (condition === undefined) throw invalidArgument(`invalid condition: "${word}"`);
  let name = call.param('id');
  let id: string | undefined;
  let resumeExitSequence = 0n;
  let lastExitCode: number | undefined;
  const open = (): AsyncIterable<container.WaitContainerResponse> =>
    peers.container.waitContainer({ name, condition, resumeExitSequence }, { signal: call.signal });
  try {
    for await (const { event } of resumed(open, call.signal)) {
      if (event?.$case === 'waiting') {
        if (id === undefined) call.startBody(200, 'application/json');
        id = event.value.containerId;
        name = id;
        resumeExitSequence = event.value.exitSequence;
        lastExitCode = model.containers.objects.get(id)?.state?.exitCode;
      } else if (event?.$case === 'result') {
        const { exitCode, error } = event.value;
        await shownAsOver(model, id, condition);
        finishWait(call, Number(exitCode), error);
        return;
      }
    }
  } catch (error) {
    // Removed while its owner was down: the wait is over, and the model knew the exit code last.
    if (id === undefined || !isEngineError(error, 'notFound')) throw error;
    finishWait(call, model.containers.objects.get(id)?.state?.exitCode ?? lastExitCode ?? 0, '');
    return;
  }
  finishWait(call, lastExitCode ?? 0, '');
}

/** A client that inspects after its wait must see the end. */
async function shownAsOver(
  model: GatewayContext['model'],
  id: string | undefined,
  condition: container.WaitCondition,
): Promise<void> {
  if (id === undefined || condition === proto.WaitCondition.NEXT_EXIT) return;
  await model.containers.shows((objects) => {
    const object = objects.get(id);
    return object === undefined || (condition !== proto.WaitCondition.REMOVED && !isRunning(object.state?.status ?? 0));
  });
}

function finishWait(call: ApiCall, exitCode: number, error: string): void {
  const body: ContainerWaited = { StatusCode: exitCode, ...(error === '' ? {} : { Error: { Message: error } }) };
  if (call.res.headersSent) call.res.end(`${JSON.stringify(body)}\n`);
  else call.json(200, body);
}
