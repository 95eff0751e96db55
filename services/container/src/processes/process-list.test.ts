import { describe, expect, it } from 'vitest';
import { parseProcessList } from './process-list.js';

const output = `UID        PID  PPID CMD
root         1     0 /sbin/init
app        100     1 sh -c  sleep 5
app          -     - thread of it
app        101     1 other
app          -     - thread of the other

`;

describe('parseProcessList', () => {
  it('keeps the lines of the processes, with their threads and all words of the last column', () => {
    expect(parseProcessList(output, new Set([100]))).toEqual({
      titles: ['UID', 'PID', 'PPID', 'CMD'],
      processes: [
        ['app', '100', '1', 'sh -c sleep 5'],
        ['app', '-', '-', 'thread of it'],
      ],
    });
  });

  it('finds nothing without processes and refuses what has no PID column', () => {
    expect(parseProcessList(output, new Set()).processes).toEqual([]);
    expect(() => parseProcessList('COMMAND\nsh\n', new Set([1]))).toThrow("Couldn't find PID field in ps output");
  });
});
