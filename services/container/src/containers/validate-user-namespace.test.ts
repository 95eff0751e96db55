import { describe, expect, it } from 'vitest';
import { validateUserNamespace, wantsUserNamespace } from './validate-user-namespace.js';

const plain = { privileged: false, networkMode: 'default', pidMode: '' };

describe('a container in a user namespace of its own', () => {
  it.each([
    [{}, undefined],
    [{ networkMode: 'none' }, undefined],
    [{ networkMode: 'container:x', pidMode: 'container:x' }, undefined],
    [
      { privileged: true },
      'privileged mode is incompatible with user namespaces.  You must run the container in the host namespace when running privileged mode',
    ],
    [{ networkMode: 'host' }, "cannot share the host's network namespace when user namespaces are enabled"],
    [{ pidMode: 'host' }, 'cannot share the host PID namespace when user namespaces are enabled'],
  ])('%j: %s', (change, message) => {
    const validate = (): void => validateUserNamespace({ ...plain, ...change });
    if (message === undefined) expect(validate).not.toThrow();
    else expect(validate).toThrow(message);
  });

  it('is what everybody gets who does not ask for the host’s', () => {
    expect(wantsUserNamespace({ usernsMode: '' })).toBe(true);
    expect(wantsUserNamespace({ usernsMode: 'host' })).toBe(false);
  });
});
