import { describe, expect, it } from 'vitest';
import { expandExposedPort, planPorts } from './port-plan.js';

const plan = (containerPort: string, ...hostPorts: [string, string][]) =>
  planPorts([{ containerPort, hostPorts: hostPorts.map(([hostIp, hostPort]) => ({ hostIp, hostPort })) }]);

describe('planPorts', () => {
  it('reads single ports, random ports and host addresses', () => {
    expect(plan('80/tcp', ['', '8080'], ['127.0.0.1', ''])).toEqual([
      { protocol: 'tcp', containerPort: 80, hostIp: '', hostPort: 8080, hostPortEnd: 0 },
      { protocol: 'tcp', containerPort: 80, hostIp: '127.0.0.1', hostPort: 0, hostPortEnd: 0 },
    ]);
  });

  it('spreads equal ranges and keeps a host range to choose from', () => {
    expect(
      plan('80-81/udp', ['', '90-91']).map((b) => [b.protocol, b.containerPort, b.hostPort, b.hostPortEnd]),
    ).toEqual([
      ['udp', 80, 90, 0],
      ['udp', 81, 91, 0],
    ]);
    expect(plan('80', ['', '90-95'])).toMatchObject([{ containerPort: 80, hostPort: 90, hostPortEnd: 95 }]);
  });

  it.each([
    ['http', '80', 'invalid port specification: "http"'],
    ['80/icmp', '80', 'invalid proto: icmp'],
    ['80', '70000', 'invalid port specification: "70000"'],
    ['80', '9-8', 'invalid port specification: "9-8"'],
    ['0', '8', 'invalid port specification: "0"'],
    ['80-82', '90-91', 'invalid ranges specified for container and host Ports'],
  ])('refuses %s at %s', (inside, outside, message) => {
    expect(() => plan(inside, ['', outside])).toThrow(message);
  });

  it('refuses an address that is none', () => {
    expect(() => plan('80', ['nowhere', '80'])).toThrow('invalid host IP: "nowhere"');
  });

  it('expands exposed ranges', () => {
    expect(expandExposedPort('7000-7002/udp')).toEqual(['7000/udp', '7001/udp', '7002/udp']);
    expect(expandExposedPort('80')).toEqual(['80/tcp']);
  });
});
