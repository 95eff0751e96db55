import { invalidArgument } from '@flotilla/errors';
import type { container } from '@flotilla/proto';

/** Whether a new container gets a user namespace of its own when the engine remaps ids. */
export function wantsUserNamespace({ usernsMode }: Pick<container.HostConfig, 'usernsMode'>): boolean {
  return usernsMode !== 'host';
}

/** What a container in a user namespace of its own cannot have. @throws EngineError `invalidArgument` in dockerd's words. */
export function validateUserNamespace(
  host: Pick<container.HostConfig, 'privileged' | 'networkMode' | 'pidMode'>,
): void {
  if (host.privileged) {
    throw invalidArgument(
      'privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode',
    );
  }
  if (host.networkMode === 'host') {
    throw invalidArgument("cannot share the host's network namespace when user namespaces are enabled");
  }
  if (host.pidMode === 'host') {
    throw invalidArgument('cannot share the host PID namespace when user namespaces are enabled');
  }
}
