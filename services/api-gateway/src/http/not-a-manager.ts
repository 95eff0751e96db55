import { unavailable } from '@flotilla/errors';
import type { EngineError } from '@flotilla/errors';

/** What an engine outside of a swarm says to whatever a manager does, in dockerd's words. */
export const notAManager = (): EngineError =>
  unavailable(
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.',
  );
