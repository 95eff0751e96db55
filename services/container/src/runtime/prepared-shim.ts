import { closeSync } from 'node:fs';
import type { CreateTask } from './runtime.js';
import { ShimClient } from './shim-client.js';
import { type ShimProgram, type StartedShim, deleteDeadShim, spawnShim, startShim } from './shim-process.js';
import { TaskFifos } from './task-fifos.js';

/** FIFOs with their read ends open, and a connected shim that holds no container yet. */
export class PreparedShim {
  readonly fifos: TaskFifos;
  readonly started: StartedShim;
  readonly client: ShimClient;
  #output: { stdoutFd: number; stderrFd: number | undefined } | undefined;

  private constructor(
    fifos: TaskFifos,
    output: { stdoutFd: number; stderrFd: number | undefined },
    started: StartedShim,
    client: ShimClient,
  ) {
    this.fifos = fifos;
    this.#output = output;
    this.started = started;
    this.client = client;
  }

  /**
   * @param takesSocket Whether the shim can be started without its `start` command.
   * @throws Error; nothing is left then.
   */
  static async make(
    program: ShimProgram,
    takesSocket: boolean,
    { id, bundle, terminal, openStdin }: Pick<CreateTask, 'id' | 'bundle' | 'terminal' | 'openStdin'>,
  ): Promise<PreparedShim> {
    const fifos = TaskFifos.make(bundle, '', terminal, openStdin);
    let output: { stdoutFd: number; stderrFd: number | undefined } | undefined;
    try {
      output = fifos.openOutput();
      const heldFds = [output.stdoutFd, ...(output.stderrFd === undefined ? [] : [output.stderrFd])];
      const started = takesSocket
        ? spawnShim(program, id, bundle, heldFds)
        : await startShim(program, id, bundle, heldFds);
      const client = await ShimClient.connect(started.address, id);
      return new PreparedShim(fifos, output, started, client);
    } catch (error) {
      if (output !== undefined) closeOutput(output);
      await deleteDeadShim(program, id, bundle).catch(() => undefined);
      fifos.remove();
      throw error;
    }
  }

  /** The read ends; the caller closes them from now on. */
  takeOutput(): { stdoutFd: number; stderrFd: number | undefined } {
    const output = this.#output;
    if (output === undefined) throw new Error('output is taken already');
    this.#output = undefined;
    return output;
  }

  /** Take everything away. `cleanup` is called when the shim does not end by itself. */
  async dispose(cleanup: () => Promise<void>): Promise<void> {
    if (this.#output !== undefined) closeOutput(this.#output);
    this.#output = undefined;
    // Without Shutdown a shim without a container stays for ever.
    await this.client.shutdown().catch(cleanup);
    this.fifos.remove();
  }
}

function closeOutput(output: { stdoutFd: number; stderrFd: number | undefined }): void {
  closeSync(output.stdoutFd);
  if (output.stderrFd !== undefined) closeSync(output.stderrFd);
}
