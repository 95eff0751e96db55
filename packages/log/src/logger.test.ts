import { describe, expect, it } from 'vitest';
import { createLogger, setLevel } from './index.js';
import type { LogFormat } from './index.js';

function capture(format: LogFormat) {
  const lines: string[] = [];
  const log = createLogger({ service: 'volume', format, destination: { write: (line) => lines.push(line) } });
  return { log, lines };
}

describe('createLogger', () => {
  it('writes one JSON object per line', () => {
    const { log, lines } = capture('json');
    log.info({ containerId: 'abc', exitCode: 3 }, 'container exited');
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({
      level: 'info',
      service: 'volume',
      containerId: 'abc',
      exitCode: 3,
      msg: 'container exited',
    });
  });

  it('redacts secrets at the top and below', () => {
    const { log, lines } = capture('json');
    log.info(
      {
        password: 'p1',
        request: { headers: { authorization: 'p2', 'X-Registry-Auth': 'p3' } },
        auth: { identitytoken: 'p4' },
      },
      'login',
    );
    for (const secret of ['p1', 'p2', 'p3', 'p4']) expect(lines[0]).not.toContain(secret);
    expect(lines[0]).toContain('[redacted]');
  });

  it('writes text with fields and the stack of an error', () => {
    const { log, lines } = capture('text');
    log.error({ err: new Error('boom'), path: '/a b' }, 'mount failed');
    expect(lines[0]).toMatch(/^\d{4}-\d\d-\d\dT.*Z ERROR volume: mount failed path="\/a b" err=boom \nError: boom/);
  });

  it('changes its level while running', () => {
    const { log, lines } = capture('json');
    log.debug('hidden');
    setLevel(log, 'debug');
    log.debug('shown');
    expect(lines).toHaveLength(1);
  });
});
