import { Any, shim, timestampToNs } from '@flotilla/proto';
import { OperationLimit } from './operation-limit.js';
import { TtrpcClient, TtrpcUnavailable } from './ttrpc-client.js';

/** Namespace of all our tasks; engines are kept apart by the exec root. */
export const SHIM_NAMESPACE = 'flotilla';

/** More than this at once on one shim makes version 1.6 stall for seconds. */
const OPERATIONS_PER_SHIM = 8;

const CREATE_TIMEOUT_MS = 120_000;
const CALL_TIMEOUT_MS = 30_000;
const NO_TIMEOUT = 0;

export interface TaskIo {
  readonly terminal: boolean;
  /** Paths of FIFOs; empty for none. */
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
}

export interface WaitResult {
  readonly exitCode: number;
  readonly exitedAtNs: bigint;
}

export interface TaskState extends WaitResult {
  readonly pid: number;
  readonly status: shim.TaskStatus;
}

/** Where a shim listens and which version of the task API it speaks. */
export interface ShimAddress {
  readonly socketPath: string;
  readonly service: string;
}

/**
 * Read what `start` prints: `unix:///run/containerd/s/<hash>` (1.6 and 1.7, task API v2) or JSON with `version` and `address` (2.x, v3).
 * @throws Error for anything else.
 */
export function parseShimAddress(text: string): ShimAddress {
  const trimmed = text.trim();
  if (trimmed.startsWith('{')) {
    const params = JSON.parse(trimmed) as { version?: number; address?: string; protocol?: string };
    if (typeof params.address !== 'string') throw new Error(`shim printed no address: ${trimmed}`);
    if (params.protocol !== undefined && params.protocol !== 'ttrpc') {
      throw new Error(`shim speaks ${params.protocol}, not ttrpc`);
    }
    const service = (params.version ?? 2) >= 3 ? 'containerd.task.v3.Task' : 'containerd.task.v2.Task';
    return { socketPath: params.address.replace(/^unix:\/\//, ''), service };
  }
  if (!trimmed.startsWith('unix://')) throw new Error(`shim printed no address: ${trimmed}`);
  return { socketPath: trimmed.slice('unix://'.length), service: 'containerd.task.v2.Task' };
}

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

const nothing: Codec<object> = {
  encode: () => ({ finish: () => new Uint8Array(0) }),
  decode: () => ({}),
};

/** The task API of one shim that holds one container. An empty `execId` means the container's first process. */
export class ShimClient {
  readonly #client: TtrpcClient;
  readonly #service: string;
  readonly #id: string;
  readonly #limit = new OperationLimit(OPERATIONS_PER_SHIM);

  private constructor(client: TtrpcClient, service: string, id: string) {
    this.#client = client;
    this.#service = service;
    this.#id = id;
  }

  /** @throws TtrpcUnavailable when the shim is gone. */
  static async connect(address: string, id: string): Promise<ShimClient> {
    const { socketPath, service } = parseShimAddress(address);
    const client = await TtrpcClient.connect(socketPath, { 'containerd-namespace-ttrpc': SHIM_NAMESPACE });
    return new ShimClient(client, service, id);
  }

  get isOpen(): boolean {
    return this.#client.isOpen;
  }

  close(): void {
    this.#client.close();
  }

  async create(bundle: string, io: TaskIo, options: Partial<shim.RuncOptions>, checkpoint = ''): Promise<number> {
    const request = shim.CreateTaskRequest.fromPartial({
      id: this.#id,
      bundle,
      ...io,
      checkpoint,
      options: runcOptions(options),
    });
    const { pid } = await this.#call(
      'Create',
      shim.CreateTaskRequest,
      request,
      shim.CreateTaskResponse,
      CREATE_TIMEOUT_MS,
    );
    return pid;
  }

  async start(execId = ''): Promise<number> {
    const request = { id: this.#id, execId };
    return (await this.#call('Start', shim.StartRequest, request, shim.StartResponse, CREATE_TIMEOUT_MS)).pid;
  }

  /** Settles when the process has ended; does not count as an operation. */
  async wait(execId = ''): Promise<WaitResult> {
    const request = shim.WaitRequest.encode({ id: this.#id, execId }).finish();
    const reply = shim.WaitResponse.decode(await this.#client.call(this.#service, 'Wait', request, NO_TIMEOUT));
    return { exitCode: reply.exitStatus, exitedAtNs: exitTime(reply.exitedAt) };
  }

  async state(execId = ''): Promise<TaskState> {
    const reply = await this.#call('State', shim.StateRequest, { id: this.#id, execId }, shim.StateResponse);
    return {
      pid: reply.pid,
      status: reply.status,
      exitCode: reply.exitStatus,
      exitedAtNs: exitTime(reply.exitedAt),
    };
  }

  async kill(signal: number, all: boolean, execId = ''): Promise<void> {
    await this.#call('Kill', shim.KillRequest, { id: this.#id, execId, signal, all }, nothing);
  }

  async delete(execId = ''): Promise<WaitResult> {
    const reply = await this.#call('Delete', shim.DeleteRequest, { id: this.#id, execId }, shim.DeleteResponse);
    return { exitCode: reply.exitStatus, exitedAtNs: exitTime(reply.exitedAt) };
  }

  async exec(execId: string, io: TaskIo, processJson: string): Promise<void> {
    const request = {
      id: this.#id,
      execId,
      ...io,
      spec: {
        typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/Process',
        value: Buffer.from(processJson),
      },
    };
    await this.#call('Exec', shim.ExecProcessRequest, request, nothing);
  }

  async resizePty(width: number, height: number, execId = ''): Promise<void> {
    await this.#call('ResizePty', shim.ResizePtyRequest, { id: this.#id, execId, width, height }, nothing);
  }

  /** The shim's own pid. */
  async shimPid(): Promise<number> {
    return (await this.#call('Connect', shim.ConnectRequest, { id: this.#id }, shim.ConnectResponse)).shimPid;
  }

  /** Close the shim's own write end of standard input, so that the process reads the end once the FIFO is empty. */
  async closeStdin(execId = ''): Promise<void> {
    await this.#call('CloseIO', shim.CloseIORequest, { id: this.#id, execId, stdin: true }, nothing);
  }

  async checkpoint(path: string, exit: boolean): Promise<void> {
    const value = shim.RuncCheckpointOptions.encode(
      shim.RuncCheckpointOptions.fromPartial({ exit, openTcp: true, externalUnixSockets: true, fileLocks: true }),
    ).finish();
    const options = { typeUrl: 'containerd.runc.v1.CheckpointOptions', value: Buffer.from(value) };
    const request = { id: this.#id, path, options };
    await this.#call('Checkpoint', shim.CheckpointTaskRequest, request, nothing, CREATE_TIMEOUT_MS);
  }

  async pause(): Promise<void> {
    await this.#call('Pause', shim.PauseRequest, { id: this.#id }, nothing);
  }

  async resume(): Promise<void> {
    await this.#call('Resume', shim.ResumeRequest, { id: this.#id }, nothing);
  }

  async pids(): Promise<number[]> {
    const reply = await this.#call('Pids', shim.PidsRequest, { id: this.#id }, shim.PidsResponse);
    return reply.processes.map((process) => process.pid);
  }

  async update(resourcesJson: string): Promise<void> {
    const request = {
      id: this.#id,
      resources: {
        typeUrl: 'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources',
        value: Buffer.from(resourcesJson),
      },
      annotations: {},
    };
    await this.#call('Update', shim.UpdateTaskRequest, request, nothing);
  }

  /** Ask the shim to end and close the connection. */
  async shutdown(): Promise<void> {
    try {
      await this.#call('Shutdown', shim.ShutdownRequest, { id: this.#id, now: true }, nothing);
    } catch (error) {
      // The shim may be gone before its answer is.
      if (!(error instanceof TtrpcUnavailable)) throw error;
    } finally {
      this.close();
    }
  }

  async #call<Req, Res>(
    method: string,
    requestCodec: Codec<Req>,
    request: Req,
    responseCodec: Codec<Res>,
    timeoutMs: number = CALL_TIMEOUT_MS,
  ): Promise<Res> {
    const payload = requestCodec.encode(request).finish();
    const reply = await this.#limit.run(() => this.#client.call(this.#service, method, payload, timeoutMs));
    return responseCodec.decode(reply);
  }
}

/** The options of a runc task as the shim takes them. */
export function runcOptions(options: Partial<shim.RuncOptions>): Any {
  return {
    typeUrl: 'containerd.runc.v1.Options',
    value: Buffer.from(shim.RuncOptions.encode(shim.RuncOptions.fromPartial(options)).finish()),
  };
}

function exitTime(exitedAt: Parameters<typeof timestampToNs>[0] | undefined): bigint {
  return exitedAt === undefined ? BigInt(Date.now()) * 1_000_000n : timestampToNs(exitedAt);
}
