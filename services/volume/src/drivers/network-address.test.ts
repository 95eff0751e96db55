import { describe, expect, it } from 'vitest';
import { SysError } from '@flotilla/sys';
import { localMount } from './local-options.js';
import { mountError } from './mount-error.js';
import { resolveServer } from './network-address.js';

const mountOf = (options: Record<string, string>) => {
  const mount = localMount(options);
  if (mount === undefined) throw new Error('no mount');
  return mount;
};
const asked: string[] = [];
const resolve = (host: string) => {
  asked.push(host);
  return Promise.resolve('192.0.2.7');
};

describe('servers of network volumes', () => {
  it.each([
    [{ type: 'nfs', device: ':/x', o: 'vers=4,addr=nas.example,soft' }, ':/x', 'vers=4,addr=192.0.2.7,soft'],
    [{ type: 'nfs4', device: ':/x', o: 'addr=nas' }, ':/x', 'addr=192.0.2.7'],
    [{ type: 'nfs', device: ':/x', o: 'addr=10.0.0.1' }, ':/x', 'addr=10.0.0.1'],
    [{ type: 'nfs', device: ':/x', o: 'addr=fd00::1' }, ':/x', 'addr=fd00::1'],
    [{ type: 'cifs', device: '//nas/share/a', o: 'username=u' }, '//192.0.2.7/share/a', 'username=u'],
    [{ type: 'cifs', device: '//10.1.1.1/share', o: 'ro' }, '//10.1.1.1/share', ''],
    [{ type: 'cifs', device: '//nas/share', o: 'addr=nas' }, '//nas/share', 'addr=192.0.2.7'],
    [{ type: 'tmpfs', device: '//nas/share', o: 'addr=nas' }, '//nas/share', 'addr=nas'],
  ])('%j', async (options, device, data) => {
    expect(await resolveServer(mountOf(options), resolve)).toMatchObject({ device, data });
  });

  it('are looked up in the machine, and refused in one sentence when there is none', async () => {
    expect(await resolveServer(mountOf({ type: 'nfs', device: ':/x', o: 'addr=localhost' }))).toMatchObject({
      data: 'addr=127.0.0.1',
    });
    await expect(
      resolveServer(mountOf({ type: 'nfs', device: ':/x', o: 'addr=no.such.host.invalid' })),
    ).rejects.toThrow(/^error resolving passed in network volume address: lookup no\.such\.host\.invalid: /);
  });

  it('get no password into a message', () => {
    const mount = mountOf({ type: 'cifs', device: '//nas/share', o: 'username=u,password=geheim,vers=3,pass=auch' });
    expect(mountError('/v', mount, new SysError('mount', 2)).message).toBe(
      "error while mounting volume '/v': failed to mount local volume: " +
        'mount //nas/share:/v, data: username=u,password=********,vers=3,pass=********: no such file or directory',
    );
  });
});
