/** One RPC of a generated service definition (`VolumeServiceService.getVolume` in ts-proto's output). */
export interface AnyMethod {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly requestSerialize: (value: never) => Buffer;
  readonly requestDeserialize: (bytes: Buffer) => unknown;
  readonly responseSerialize: (value: never) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => unknown;
}

/** A generated service definition: RPC name in camelCase to method. */
export type AnyServiceDefinition = Readonly<Record<string, AnyMethod>>;

export type RequestOf<M extends AnyMethod> = ReturnType<M['requestDeserialize']>;
export type ResponseOf<M extends AnyMethod> = ReturnType<M['responseDeserialize']>;

export type MethodKind = 'unary' | 'serverStream' | 'clientStream' | 'bidi';

export function kindOf(method: AnyMethod): MethodKind {
  if (method.requestStream) return method.responseStream ? 'bidi' : 'clientStream';
  return method.responseStream ? 'serverStream' : 'unary';
}

/** `/flotilla.volume.v1.VolumeService/GetVolume` -> `{ area: 'volume', call: 'VolumeService.GetVolume' }`, for messages. */
export function describePath(path: string): { area: string; call: string } {
  const [service = '', method = ''] = path.slice(1).split('/');
  const words = service.split('.');
  return { area: words[1] ?? service, call: `${words.at(-1) ?? service}.${method}` };
}
