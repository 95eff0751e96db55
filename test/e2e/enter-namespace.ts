import { closeSync, openSync } from 'node:fs';
import { CLONE_NEWNET, setns } from '@flotilla/sys';
import type { NetworkNamespace } from '@flotilla/testkit';

/**
 * Move this thread into a network namespace until disposal: servers and connections that the test makes, and processes
 * that it starts, are inside then.
 */
export function enterNamespace(namespace: NetworkNamespace): Disposable {
  const own = openSync('/proc/thread-self/ns/net', 'r');
  const other = openSync(`/run/netns/${namespace.name}`, 'r');
  setns(other, CLONE_NEWNET);
  closeSync(other);
  return {
    [Symbol.dispose]() {
      setns(own, CLONE_NEWNET);
      closeSync(own);
    },
  };
}
