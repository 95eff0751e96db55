import { pipe2, setPipeSize } from '@flotilla/sys';

const pipeBytes = 1 << 20;

/** A pipe of 1 MiB, so that a program and a thread take turns seldom. Both ends are the caller's to close. */
export function largePipe(): ReturnType<typeof pipe2> {
  const pipe = pipe2();
  setPipeSize(pipe.readFd, pipeBytes);
  return pipe;
}
