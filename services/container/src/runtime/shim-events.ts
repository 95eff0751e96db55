import { shim } from '@flotilla/proto';
import { TtrpcServer } from './ttrpc-server.js';

/** Receives what shims report. Only want of memory is told nowhere else; exits are taken from Wait. */
export async function serveShimEvents(path: string, onOom: (containerId: string) => void): Promise<TtrpcServer> {
  return TtrpcServer.listen(path, (_service, method, payload) => {
    if (method !== 'Forward') throw new Error(`unknown method ${method}`);
    const { envelope } = shim.ForwardRequest.decode(payload);
    if (envelope?.topic === '/tasks/oom' && envelope.event !== undefined) {
      onOom(shim.TaskOom.decode(envelope.event.value).containerId);
    }
    return new Uint8Array(0);
  });
}
