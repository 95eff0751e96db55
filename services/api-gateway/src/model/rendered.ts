import type { ApiVersion } from '@flotilla/docker-api';

/** A step of the down-conversion: what an object looks like to clients older than a version. Changes a fresh copy in place. */
export interface ShapeStep<S> {
  /** Applies to versions below this one. */
  readonly below: ApiVersion;
  readonly convert: (shape: S) => void;
}

/** A shape with the chain of steps that makes older versions of it. Steps run from the newest to the oldest. */
export class VersionedShape<T, S> {
  readonly #render: (object: T) => S;
  readonly #steps: readonly ShapeStep<S>[];

  constructor(render: (object: T) => S, steps: readonly ShapeStep<S>[]) {
    this.#render = render;
    this.#steps = [...steps].sort((a, b) => b.below - a.below);
  }

  /** Versions that look alike share a number: how many steps apply to them. */
  classOf(version: ApiVersion): number {
    let steps = 0;
    while (steps < this.#steps.length && version < (this.#steps[steps]?.below ?? 0)) steps++;
    return steps;
  }

  /** The object as clients of a version see it. */
  render(object: T, version: ApiVersion): S {
    return this.convert(this.#render(object), version);
  }

  /** Apply the steps to a shape of the newest version, in place. */
  convert(shape: S, version: ApiVersion): S {
    for (const step of this.#steps.slice(0, this.classOf(version))) step.convert(shape);
    return shape;
  }
}

/**
 * Finished JSON per object and version class, kept as long as the object itself is the same. An owner's change makes a
 * new object, so nothing has to be thrown away by hand.
 */
export class RenderCache<T extends object> {
  readonly #rendered = new WeakMap<T, Map<number, Buffer>>();

  get(object: T, versionClass: number, render: () => unknown): Buffer {
    let byClass = this.#rendered.get(object);
    if (byClass === undefined) this.#rendered.set(object, (byClass = new Map<number, Buffer>()));
    let buffer = byClass.get(versionClass);
    if (buffer === undefined) byClass.set(versionClass, (buffer = Buffer.from(`${JSON.stringify(render())}\n`)));
    return buffer;
  }
}
