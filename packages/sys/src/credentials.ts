import type { Call } from './libc.js';
import { bind, checkResult } from './libc.js';
import type { IdPair } from './id-mappings.js';

const prctl: Call<[number, number, number, number, number]> = bind(
  'int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)',
);
const setfsuid: Call<[number]> = bind('int setfsuid(uint32_t id)');
const setfsgid: Call<[number]> = bind('int setfsgid(uint32_t id)');

const PR_SET_SECUREBITS = 28;
const SECBIT_NO_SETUID_FIXUP = 4;

/**
 * Run `fn` with the calling thread as this user to file systems: what it makes is that user's. Its capabilities stay. A directory shown with mapped ids
 * takes new files only from ids that it knows, and an overlay works for ever as whoever mounted it.
 */
export function asFileOwner<T>({ uid, gid }: IdPair, fn: () => T): T {
  // Without it the thread would lose the capabilities that concern files. Nothing else here changes user.
  checkResult(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0), 'set the secure bits of the thread');
  const before = { uid: setfsuid(uid), gid: setfsgid(gid) };
  try {
    return fn();
  } finally {
    setfsgid(before.gid);
    setfsuid(before.uid);
  }
}
