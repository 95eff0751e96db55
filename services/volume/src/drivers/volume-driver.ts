import type { VolumeRecord } from '../volumes/volume-record.js';

/** Whose files a volume shows: the engine's own, those of a file system that its options name, or of a directory of the machine's that they bind. */
export type VolumeContent = 'own' | 'fileSystem' | 'bind';

/**
 * Name of a directory in a volume, made before anything of an image is copied in and removed after the last of it. No container makes one of that name
 * by chance, or on purpose before it has seen it: it has the nanosecond in it in which the volume was made.
 */
export const copyStaging = ({ createdAtNs }: Pick<VolumeRecord, 'createdAtNs'>): string =>
  `.flotilla-copy-up-${createdAtNs}`;

/** The first half of a removal: the volume's name is free, its files still exist. */
export interface DetachedVolume {
  /** The removal is durable: delete the files. */
  finish(): Promise<void>;
  /** It was not: put the volume back. */
  undo(): Promise<void>;
}

/** Where a volume's files are kept. All calls for one volume but `measure` come one after the other; none keeps those for others waiting. Failures are `EngineError`s without "create NAME:" in front. */
export interface VolumeDriver {
  readonly name: string;
  readonly scope: 'local' | 'global';
  /** @throws EngineError `invalidArgument` for a name or options it cannot take. */
  check(name: string, options: Readonly<Record<string, string>>): void;
  /** Make the volume; again after a crash is fine. */
  create(name: string, options: Readonly<Record<string, string>>): Promise<void>;
  /** Undo a `create` that was not recorded; never deletes data. */
  discard(name: string): Promise<void>;
  /** Where its files are seen. */
  pathOf(name: string): string;
  contentOf(record: VolumeRecord): VolumeContent;
  detach(record: VolumeRecord): Promise<DetachedVolume>;
  /** Make the files available, once however many containers use them. */
  mount(record: VolumeRecord, signal?: AbortSignal): Promise<void>;
  /** No container uses the files any more. */
  unmount(record: VolumeRecord): Promise<void>;
  /** Whether nothing was ever written to the mounted volume but a copy that did not come to its end. */
  isFresh(record: VolumeRecord, signal?: AbortSignal): Promise<boolean>;
  /** Bytes, or -1 when that cannot be told. */
  measure(record: VolumeRecord, signal?: AbortSignal): Promise<bigint>;
  /** Bring files and mounts in line with what is recorded, at start. */
  recover(records: readonly VolumeRecord[]): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}
