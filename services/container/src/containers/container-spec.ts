import type { ContainerConfig } from '@flotilla/config';
import { unimplemented } from '@flotilla/errors';
import type { BuildSpec } from './spec-input.js';

/** The `BuildSpec` of the service: what a container asks for, as the runtime's configuration. */
export function containerSpecBuilder(_config: ContainerConfig): BuildSpec {
  return () => {
    throw unimplemented('the runtime configuration is not made yet');
  };
}
