import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isEngineError } from '@flotilla/errors';
import { emptyRunConfig, renderRunConfig } from '@flotilla/oci';
import { applyChanges } from './dockerfile-changes.js';

const apply = (...changes: string[]) => renderRunConfig(applyChanges(emptyRunConfig, changes));

describe('applyChanges', () => {
  it.each([
    [['CMD ["a","b"]'], { Cmd: ['a', 'b'] }],
    [['CMD echo $A'], { Cmd: ['/bin/sh', '-c', 'echo $A'] }],
    [['cmd []'], { Cmd: [] }],
    [['ENTRYPOINT [broken'], { Entrypoint: ['/bin/sh', '-c', '[broken'] }],
    [['ENV A=1 B="x y" C=a\\ b', 'ENV A=2', 'ENV D long value'], { Env: ['A=2', 'B=x y', 'C=a b', 'D=long value'] }],
    [
      ['EXPOSE 80 53/udp 90-92'],
      { ExposedPorts: { '53/udp': {}, '80/tcp': {}, '90/tcp': {}, '91/tcp': {}, '92/tcp': {} } },
    ],
    [['LABEL a=b "c d"=e'], { Labels: { a: 'b', 'c d': 'e' } }],
    [['ONBUILD RUN x'], { OnBuild: ['RUN x'] }],
    [['STOPSIGNAL SIGINT', 'USER 1:2'], { StopSignal: 'SIGINT', User: '1:2' }],
    [['VOLUME /a /b', 'VOLUME ["/c d"]'], { Volumes: { '/a': {}, '/b': {}, '/c d': {} } }],
    [['WORKDIR /a', 'WORKDIR b/../c'], { WorkingDir: '/a/c' }],
    [
      ['HEALTHCHECK --interval=1m30s --retries=3 CMD curl x'],
      { Healthcheck: { Test: ['CMD-SHELL', 'curl x'], Interval: 90e9, Retries: 3 } },
    ],
    [['HEALTHCHECK NONE'], { Healthcheck: { Test: ['NONE'] } }],
    [['# comment', '', 'USER a\nUSER b'], { User: 'b' }],
  ])('%j', (changes, config) => {
    expect(apply(...changes)).toEqual(config);
  });

  it.each([
    ['RUN x', 'run is not a valid change command'],
    ['FROM x', 'from is not a valid change command'],
    ['ENV', 'ENV requires at least one argument'],
    ['ENV a', 'ENV must have two arguments'],
    ['ENV a=b c', "Syntax error - can't find = in"],
    ['EXPOSE 0', 'invalid containerPort: 0'],
    ['EXPOSE 70000', 'invalid containerPort: 70000'],
    ['USER a b', 'USER requires exactly one argument'],
    ['LABEL a="b', 'looking for matching double-quote'],
    ['HEALTHCHECK --interval=1 CMD x', 'invalid duration'],
    ['HEALTHCHECK --x=1 CMD x', 'Unknown flag: x'],
    ['HEALTHCHECK RUN x', 'Unknown type'],
  ])('refuses %s', (change, message) => {
    expect(() => apply(change)).toThrow(message);
  });

  it('never fails but with invalidArgument', () => {
    const word = fc.constantFrom('CMD', 'ENV', 'EXPOSE', 'LABEL', 'HEALTHCHECK', 'VOLUME', 'WORKDIR', 'USER');
    fc.assert(
      fc.property(word, fc.string({ maxLength: 60 }), (name, rest) => {
        try {
          apply(`${name} ${rest}`);
        } catch (error) {
          if (!isEngineError(error, 'invalidArgument')) throw error;
        }
      }),
    );
  });
});
