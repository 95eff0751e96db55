import { describe, expect, it } from 'vitest';
import { linkEnvironment } from './link-environment.js';
import { parseLink } from './link-plan.js';

describe('variables of a link', () => {
  // Order and names are those of moby's package `links`.
  it('tell ports, name and variables', () => {
    const env = ['A=1', 'HOME=/root', 'PATH=/bin', 'EMPTY=', 'BARE'];
    expect(linkEnvironment('/web/my-db', '172.17.0.2', { env, exposedPorts: ['6379/tcp'] })).toEqual([
      'MY_DB_PORT=tcp://172.17.0.2:6379',
      'MY_DB_PORT_6379_TCP=tcp://172.17.0.2:6379',
      'MY_DB_PORT_6379_TCP_ADDR=172.17.0.2',
      'MY_DB_PORT_6379_TCP_PORT=6379',
      'MY_DB_PORT_6379_TCP_PROTO=tcp',
      'MY_DB_NAME=/web/my-db',
      'MY_DB_ENV_A=1',
      'MY_DB_ENV_EMPTY=',
    ]);
  });

  it('tell neighbours as a range', () => {
    const told = linkEnvironment('/web/db', '10.0.0.2', {
      env: [],
      exposedPorts: ['80/udp', '80/tcp', '81/tcp', '9/tcp'],
    });
    expect(told.filter((entry) => /_(START|END|PORT)=|DB_PORT_80_TCP=/.test(entry))).toEqual([
      'DB_PORT=tcp://10.0.0.2:9',
      'DB_PORT_80_TCP_START=tcp://10.0.0.2:80',
      'DB_PORT_80_TCP_PORT_START=80',
      'DB_PORT_80_TCP_END=tcp://10.0.0.2:81',
      'DB_PORT_80_TCP_PORT_END=81',
      'DB_PORT_9_TCP_PORT=9',
      'DB_PORT_80_TCP=tcp://10.0.0.2:80',
      'DB_PORT_80_TCP_PORT=80',
      'DB_PORT_80_UDP_PORT=80',
      'DB_PORT_81_TCP_PORT=81',
    ]);
  });

  it('are only the name where nothing is exposed', () => {
    expect(linkEnvironment('/web/db', '10.0.0.2', { env: [], exposedPorts: [] })).toEqual(['DB_NAME=/web/db']);
  });
});

describe('the words of a link', () => {
  it.each([
    ['db', 'db', 'db'],
    ['db:alias', 'db', 'alias'],
    ['/db:/web/alias', 'db', 'alias'],
  ])('%s', (text, name, alias) => {
    expect(parseLink(text)).toEqual({ name, alias });
  });

  it.each([
    ['', 'empty string specified for links'],
    ['a:b:c', 'bad format for links: a:b:c'],
    ['db:two words', 'bad format for links: db:two words'],
    ['db:a\n127.0.0.1 evil', 'bad format for links'],
    ['db:', 'bad format for links: db:'],
  ])('refuses %j', (text, message) => {
    expect(() => parseLink(text)).toThrow(message);
  });
});
