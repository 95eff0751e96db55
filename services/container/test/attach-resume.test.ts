import { container } from '@flotilla/proto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { canRun, createRequest, deadline, makeContainerService, waitFor } from './container-fixture.js';

const START_OF_LOG = '0:0:/0/0';

/** The first run exits with 1, the second with 2; the third stays. */
const counting =
  'n=$(($(cat /n 2>/dev/null || echo 0) + 1)); echo $n > /n; echo run $n; [ $n -lt 3 ] || sleep 1000; exit $n';

describe.skipIf(!canRun)('an attach that is resumed after its run (needs root, shim, runc, busybox)', () => {
  let service: Awaited<ReturnType<typeof makeContainerService>>;
  beforeAll(async () => {
    service = await makeContainerService();
  });
  afterAll(async () => {
    await service[Symbol.asyncDispose]();
  });

  const start = (name: string) => service.client.startContainer({ name, checkpoint: '', checkpointDir: '' }, deadline);
  const resume = async (name: string, position: string, exitSequence: bigint, onAttached?: () => Promise<unknown>) => {
    const value = container.AttachStart.fromPartial({
      ...{ name, stdout: true, stderr: true, stream: true },
      resume: { position, exitSequence },
    });
    async function* requests(): AsyncGenerator<container.AttachContainerRequest> {
      yield await Promise.resolve({ frame: { $case: 'start' as const, value } });
    }
    const seen = { output: '', position, exitCode: -1 };
    for await (const message of service.client.attachContainer(requests())) {
      if (message.frame?.$case === 'attached') await onAttached?.();
      else if (message.frame?.$case === 'output') {
        seen.output += message.frame.value.subarray(8).toString();
        seen.position = message.position;
      } else if (message.frame?.$case === 'exited') seen.exitCode = message.frame.value.exitCode;
    }
    return seen;
  };
  const startedAgain = 'the container was started again since, attach again';

  it('tells of that run, and never of another one', async () => {
    const { id } = await service.client.createContainer(createRequest(['sh', '-c', counting]), deadline);
    await start(id);
    expect(await waitFor(service.client, id)).toBe(1);
    const first = await resume(id, START_OF_LOG, 0n);
    expect(first).toMatchObject({ output: 'run 1\n', exitCode: 1 });
    await start(id);
    expect(await waitFor(service.client, id)).toBe(2);
    expect(await resume(id, first.position, 1n)).toMatchObject({ output: 'run 2\n', exitCode: 2 });
    await expect(resume(id, START_OF_LOG, 0n)).rejects.toThrow(startedAgain);
    await start(id);
    await expect(resume(id, first.position, 1n)).rejects.toThrow(startedAgain);
  });

  it('tells of that run, too, when it ends while the container is started again', async () => {
    const { id } = await service.client.createContainer(
      createRequest(['sh', '-c', counting], {
        hostConfig: { restartPolicy: { name: 'always', maximumRetryCount: 0 } },
      }),
      deadline,
    );
    // The run to come is waited for, and others follow it.
    const first = await resume(id, START_OF_LOG, 0n, () => start(id));
    expect(first).toMatchObject({ output: 'run 1\n', exitCode: 1 });
  });
});
