/** A service with one RPC of each form and JSON messages, for this package's tests. */
const encode = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

export interface Note {
  text: string;
}

const decodeNote = (bytes: Buffer): Note => JSON.parse(bytes.toString()) as Note;
const codecs = {
  requestSerialize: (value: Note) => encode(value),
  requestDeserialize: decodeNote,
  responseSerialize: (value: Note) => encode(value),
  responseDeserialize: decodeNote,
};

export const NoteService = {
  one: {
    path: '/flotilla.note.v1.NoteService/One' as const,
    requestStream: false as const,
    responseStream: false as const,
    ...codecs,
  },
  many: {
    path: '/flotilla.note.v1.NoteService/Many' as const,
    requestStream: false as const,
    responseStream: true as const,
    ...codecs,
  },
  collect: {
    path: '/flotilla.note.v1.NoteService/Collect' as const,
    requestStream: true as const,
    responseStream: false as const,
    ...codecs,
  },
  chat: {
    path: '/flotilla.note.v1.NoteService/Chat' as const,
    requestStream: true as const,
    responseStream: true as const,
    ...codecs,
  },
};
