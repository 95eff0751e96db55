import { rpcErrorDetails, rpcStatus } from '@flotilla/proto';

export type ErrorInfo = rpcErrorDetails.ErrorInfo;

const errorInfoUrl = 'type.googleapis.com/google.rpc.ErrorInfo';

/** A `google.rpc.Status` that holds one `google.rpc.ErrorInfo`, for the `grpc-status-details-bin` trailer. */
export function encodeStatus(code: number, message: string, info: ErrorInfo): Buffer {
  const value = Buffer.from(rpcErrorDetails.ErrorInfo.encode(info).finish());
  return Buffer.from(rpcStatus.Status.encode({ code, message, details: [{ typeUrl: errorInfoUrl, value }] }).finish());
}

/** Reads a `google.rpc.Status`; `info` is the first ErrorInfo in it. @throws on malformed bytes. */
export function decodeStatus(bytes: Uint8Array): { message: string; info: ErrorInfo | undefined } {
  const { message, details } = rpcStatus.Status.decode(bytes);
  const any = details.find(({ typeUrl }) => typeUrl === errorInfoUrl);
  return { message, info: any === undefined ? undefined : rpcErrorDetails.ErrorInfo.decode(any.value) };
}
