/** A container's claim on a volume. While there is one the volume cannot be removed. */
export interface VolumeHolder {
  readonly containerId: string;
  /** For "in use" messages. */
  readonly containerName: string;
  /** The container asked for the volume by its name, so it does not go with the container. */
  readonly isNamed: boolean;
  /** Milliseconds since the epoch. */
  readonly acquiredAt: number;
}

/** One place where a running container sees the volume. */
export interface VolumeMount {
  readonly containerId: string;
  readonly destination: string;
  readonly readOnly: boolean;
  readonly propagation: string;
}

/** A volume as it is stored. Never changed in place. */
export interface VolumeRecord {
  readonly name: string;
  readonly driver: string;
  /** Nanoseconds since the epoch, as text: JSON has no 64-bit integers. */
  readonly createdAtNs: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
  /** Made without a name. `destination` and `containerId` are empty when no container was named either. */
  readonly anonymous: { readonly containerId: string; readonly destination: string } | null;
  readonly holders: readonly VolumeHolder[];
  readonly mounts: readonly VolumeMount[];
  /** The record was lost, and why: only the name is known. The next `create` of that name takes the files over. */
  readonly damage?: string;
}
