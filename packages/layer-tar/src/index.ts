export { cleanName, fsPath } from './byte-paths.js';
export { packTree } from './pack-tree.js';
export type { PackOptions } from './pack-tree.js';
export { TarApplier } from './tar-applier.js';
export type { ApplyOptions } from './tar-applier.js';
export type { SparseFragment, TarEntry, TarEntryType, TarSink } from './tar-entry.js';
export { TarParser } from './tar-parser.js';
export { TarWriter } from './tar-writer.js';
export type { TarHeader } from './tar-writer.js';
