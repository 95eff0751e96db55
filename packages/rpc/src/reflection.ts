import { readFile } from 'node:fs/promises';
import { status } from '@grpc/grpc-js';
import { BinaryReader, WireType, rpcReflection } from '@flotilla/proto';
import { messageOf } from '@flotilla/errors';
import { bidi, serviceEntry } from './handlers.js';
import type { ServiceEntry } from './handlers.js';

type Request = rpcReflection.ServerReflectionRequest;
type Response = rpcReflection.ServerReflectionResponse;

/**
 * `grpc.reflection.v1.ServerReflection` over a descriptor set built by `buf build`. The file is read at the first
 * question. Ours because @grpc/reflection wants the descriptors, and protobufjs, at start.
 */
export function reflectionEntry(descriptorSet: string, serviceNames: readonly string[]): ServiceEntry {
  let files: Promise<DescriptorFiles> | undefined;
  return serviceEntry(rpcReflection.ServerReflectionService, {
    serverReflectionInfo: bidi(async function* (requests: AsyncIterable<Request>) {
      for await (const request of requests) {
        let messageResponse: Response['messageResponse'];
        try {
          files ??= readFile(descriptorSet).then(parseDescriptorSet);
          messageResponse = answer(request, await files, serviceNames);
        } catch (error) {
          files = undefined;
          messageResponse = failure(status.UNAVAILABLE, `no descriptors: ${messageOf(error)}`);
        }
        yield { validHost: request.host, originalRequest: request, messageResponse } satisfies Response;
      }
    }),
  });
}

function answer(
  { messageRequest }: Request,
  files: DescriptorFiles,
  serviceNames: readonly string[],
): Response['messageResponse'] {
  switch (messageRequest?.$case) {
    case 'listServices':
      return { $case: 'listServicesResponse', value: { service: serviceNames.map((name) => ({ name })) } };
    case 'fileByFilename':
      return filesFrom(files, messageRequest.value);
    case 'fileContainingSymbol':
      return filesFrom(files, files.fileOfSymbol.get(messageRequest.value) ?? '');
    case 'allExtensionNumbersOfType':
      return {
        $case: 'allExtensionNumbersResponse',
        value: { baseTypeName: messageRequest.value, extensionNumber: [] },
      };
    case 'fileContainingExtension':
      return failure(status.NOT_FOUND, 'there are no extensions');
    default:
      return failure(status.INVALID_ARGUMENT, 'empty question');
  }
}

function filesFrom(files: DescriptorFiles, name: string): Response['messageResponse'] {
  if (!files.byName.has(name)) return failure(status.NOT_FOUND, 'no such file or symbol');
  const wanted = new Set([name]);
  const bytes: Buffer[] = [];
  for (const each of wanted) {
    const file = files.byName.get(each);
    if (file === undefined) continue;
    bytes.push(file.bytes);
    for (const dependency of file.dependencies) wanted.add(dependency);
  }
  return { $case: 'fileDescriptorResponse', value: { fileDescriptorProto: bytes } };
}

const failure = (errorCode: number, errorMessage: string): Response['messageResponse'] => ({
  $case: 'errorResponse',
  value: { errorCode, errorMessage },
});

interface DescriptorFiles {
  byName: Map<string, { bytes: Buffer; dependencies: string[] }>;
  fileOfSymbol: Map<string, string>;
}

/** Reads just names out of a `google.protobuf.FileDescriptorSet { repeated FileDescriptorProto file = 1 }`. */
export function parseDescriptorSet(set: Uint8Array): DescriptorFiles {
  const files: DescriptorFiles = { byName: new Map(), fileOfSymbol: new Map() };
  eachBytesField(set, (field, file) => {
    if (field !== 1) return;
    let name = '';
    let scope = '';
    const dependencies: string[] = [];
    // FileDescriptorProto: name = 1, package = 2, dependency = 3, message_type = 4, enum_type = 5, service = 6.
    eachBytesField(file, (inner, bytes) => {
      if (inner === 1) name = text(bytes);
      else if (inner === 2) scope = `${text(bytes)}.`;
      else if (inner === 3) dependencies.push(text(bytes));
    });
    eachBytesField(file, (inner, bytes) => {
      if (inner === 4) addMessage(files, name, scope, bytes);
      else if (inner === 5) files.fileOfSymbol.set(scope + nameOf(bytes), name);
      else if (inner === 6) addService(files, name, scope, bytes);
    });
    files.byName.set(name, { bytes: Buffer.from(file), dependencies });
  });
  return files;
}

// DescriptorProto: name = 1, nested_type = 3, enum_type = 4.
function addMessage(files: DescriptorFiles, file: string, scope: string, message: Uint8Array): void {
  const symbol = scope + nameOf(message);
  files.fileOfSymbol.set(symbol, file);
  eachBytesField(message, (field, bytes) => {
    if (field === 3) addMessage(files, file, `${symbol}.`, bytes);
    else if (field === 4) files.fileOfSymbol.set(`${symbol}.${nameOf(bytes)}`, file);
  });
}

// ServiceDescriptorProto: name = 1, method = 2.
function addService(files: DescriptorFiles, file: string, scope: string, service: Uint8Array): void {
  const symbol = scope + nameOf(service);
  files.fileOfSymbol.set(symbol, file);
  eachBytesField(service, (field, bytes) => {
    if (field === 2) files.fileOfSymbol.set(`${symbol}.${nameOf(bytes)}`, file);
  });
}

function nameOf(descriptor: Uint8Array): string {
  let name = '';
  eachBytesField(descriptor, (field, bytes) => {
    if (field === 1) name = text(bytes);
  });
  return name;
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

function eachBytesField(message: Uint8Array, visit: (field: number, bytes: Uint8Array) => void): void {
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType === WireType.LengthDelimited) visit(field, reader.bytes());
    else reader.skip(wireType, field);
  }
}
