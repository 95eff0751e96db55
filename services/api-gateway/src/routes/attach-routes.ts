import { apiVersion, booleanValue, parseDetachKeys } from '@flotilla/docker-api';
import { invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import type { ApiCall } from '../http/api-call.js';
import type { Route } from '../http/route-table.js';
import { execBody, execStartBody } from '../json/container-bodies.js';
import { type ClientStream, RawClientStream, connectionOf } from './client-stream.js';
import { terminalSize } from './container-routes.js';
import { changing, reading } from './gateway-context.js';
import type { GatewayContext } from './gateway-context.js';
import { resumedAttach } from './resumed-attach.js';
import { WebSocketClientStream } from './web-socket-stream.js';

const MAX_ATTACH_BODY = 64 * 1024;
/** Since this version a WebSocket names the streams that it wants; before it has all of them. */
const WEB_SOCKET_STREAMS_SINCE = apiVersion(1, 42);

/** The endpoints that turn the connection into a raw stream, and what belongs to them. */
export function attachRoutes(context: GatewayContext): Route[] {
  const { peers } = context;
  return [
    { method: 'POST', path: '/containers/{id}/attach', hijack: true, handler: (call) => attachRaw(context, call) },
    {
      method: 'GET',
      path: '/containers/{id}/attach/ws',
      hijack: true,
      handler: (call) => attachWebSocket(context, call),
    },
    { method: 'POST', path: '/containers/{id}/exec', handler: (call) => createExec(context, call) },
    { method: 'POST', path: '/exec/{id}/start', hijack: true, handler: (call) => startExec(context, call) },
    {
      method: 'POST',
      path: '/exec/{id}/resize',
      handler: async (call) => {
        await peers.container.resizeExec({ id: call.param('id'), ...terminalSize(call) }, reading(call));
        call.empty(200);
      },
    },
    { method: 'GET', path: '/exec/{id}/json', handler: (call) => inspectExec(context, call) },
  ];
}

/** A message of the way down, the same for attach and exec. */
type StreamMessage = container.AttachContainerResponse | container.StartExecResponse;

async function attachRaw(context: GatewayContext, call: ApiCall): Promise<void> {
  const options = attachOptions(call);
  // Some clients (dockerode) send their options as a body too: it is not input of the container.
  await connectionOf(call).readBody(MAX_ATTACH_BODY);
  await attach(context, call, options, new RawClientStream(call));
}

async function attachWebSocket(context: GatewayContext, call: ApiCall): Promise<void> {
  const options = attachOptions(call);
  const isOlder = call.version < WEB_SOCKET_STREAMS_SINCE;
  const streams = isOlder ? { ...options, stdin: true, stdout: true, stderr: true } : options;
  await attach(context, call, streams, new WebSocketClientStream(call));
}

function attachOptions(call: ApiCall): container.AttachStart {
  const { query } = call;
  const detachKeys = query.get('detachKeys') ?? '';
  try {
    parseDetachKeys(detachKeys);
  } catch (cause) {
    throw invalidArgument(`Invalid detach keys (${detachKeys}) provided`, { cause });
  }
  return {
    name: call.param('id'),
    stdin: booleanValue(query.get('stdin')),
    stdout: booleanValue(query.get('stdout')),
    stderr: booleanValue(query.get('stderr')),
    logs: booleanValue(query.get('logs')),
    stream: booleanValue(query.get('stream')),
    detachKeys,
  };
}

async function attach(
  context: GatewayContext,
  call: ApiCall,
  start: container.AttachStart,
  client: ClientStream,
): Promise<void> {
  await relay(call, client, resumedAttach(context, call, start, client));
}

/**
 * Pass output on until the process ends. The reply's head is sent when the owner has accepted, so that what it refuses
 * is an ordinary error reply. A service that dies in between is told to the client in one line.
 */
async function relay(call: ApiCall, client: ClientStream, messages: AsyncIterable<StreamMessage>): Promise<void> {
  let isOpen = false;
  try {
    for await (const { frame } of messages) {
      if (!isOpen) {
        await client.open(frame?.$case === 'attached' && frame.value.tty);
        isOpen = true;
      }
      if (frame?.$case === 'output') await client.write(frame.value);
      else if (frame?.$case === 'exited') break;
    }
  } catch (error) {
    if (!isOpen || isEngineError(error, 'cancelled')) throw error;
    call.log.info({ path: call.path, requestId: call.requestId, err: error }, 'attached stream broke off');
    await client.tell(
      isEngineError(error, 'unavailable')
        ? 'the stream broke off because the container service restarted; the container goes on, attach again'
        : messageOf(error),
    );
  }
  if (!isOpen) await client.open(false);
  client.end();
}

async function createExec({ model, peers }: GatewayContext, call: ApiCall): Promise<void> {
  const body = (await call.readJson(execBody)) ?? {};
  if (body.Cmd === undefined || body.Cmd.length === 0) throw invalidArgument('No exec command specified');
  const [height = 0, width = 0] = body.ConsoleSize ?? [];
  const { id, revision } = await peers.container.createExec(
    {
      container: call.param('id'),
      config: {
        attachStdin: body.AttachStdin ?? false,
        attachStdout: body.AttachStdout ?? false,
        attachStderr: body.AttachStderr ?? false,
        tty: body.Tty ?? false,
        detachKeys: body.DetachKeys ?? '',
        cmd: body.Cmd,
        env: body.Env ?? [],
        user: body.User ?? '',
        privileged: body.Privileged ?? false,
        workingDir: body.WorkingDir ?? '',
        consoleSize: height === 0 || width === 0 ? undefined : { height, width },
      },
    },
    changing(call),
  );
  await model.containers.reached(revision);
  call.json(201, { Id: id });
}

async function startExec({ peers }: GatewayContext, call: ApiCall): Promise<void> {
  const client = new RawClientStream(call);
  const body = (await call.readJson(execStartBody)) ?? {};
  const [height = 0, width = 0] = body.ConsoleSize ?? [];
  const detach = body.Detach ?? false;
  const start: container.ExecStart = {
    id: call.param('id'),
    detach,
    tty: body.Tty ?? false,
    consoleSize: height === 0 || width === 0 ? undefined : { height, width },
  };
  async function* requests(): AsyncGenerator<container.StartExecRequest> {
    yield { frame: { $case: 'start', value: start } };
    if (detach) return;
    for await (const chunk of client.input()) yield { frame: { $case: 'stdin', value: chunk } };
  }
  const messages = peers.container.startExec(requests(), { signal: call.signal });
  if (!detach) {
    await relay(call, client, messages);
    return;
  }
  for await (const { frame } of messages) if (frame !== undefined) break;
  call.empty(200);
}

async function inspectExec({ peers }: GatewayContext, call: ApiCall): Promise<void> {
  const exec = await peers.container.getExec({ id: call.param('id') }, reading(call));
  const { config } = exec;
  const [entrypoint = '', ...args] = config?.cmd ?? [];
  call.json(200, {
    ID: exec.id,
    Running: exec.running,
    ExitCode: exec.exitCode ?? null,
    ProcessConfig: {
      tty: config?.tty ?? false,
      entrypoint,
      arguments: args,
      privileged: config?.privileged ?? false,
      ...(config === undefined || config.user === '' ? {} : { user: config.user }),
    },
    OpenStdin: config?.attachStdin ?? false,
    OpenStderr: config?.attachStderr ?? false,
    OpenStdout: config?.attachStdout ?? false,
    CanRemove: exec.canRemove,
    ContainerID: exec.containerId,
    DetachKeys: config?.detachKeys ?? '',
    Pid: exec.pid,
  });
}
