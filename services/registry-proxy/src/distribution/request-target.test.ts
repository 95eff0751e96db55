import { describe, expect, it } from 'vitest';
import { OciError } from './oci-error.js';
import { readTarget } from './request-target.js';

const hex = 'a'.repeat(64);
const read = (path: string) => readTarget(new URL(`http://localhost${path}`));

describe('readTarget', () => {
  it.each<[string, string, string, string | undefined]>([
    ['/v2/quay.io/team/app/manifests/v1', 'quay.io', 'team/app', 'v1'],
    ['/v2/127.0.0.1__5000/web/manifests/latest', '127.0.0.1:5000', 'web', 'latest'],
    ['/v2/127.0.0.1:5000/web/manifests/latest', '127.0.0.1:5000', 'web', 'latest'],
    ['/v2/localhost/web/manifests/latest', 'localhost', 'web', 'latest'],
    ['/v2/library/busybox/manifests/1', 'docker.io', 'library/busybox', '1'],
    ['/v2/busybox/manifests/1', 'docker.io', 'library/busybox', '1'],
    ['/v2/docker.io/busybox/manifests/1', 'docker.io', 'library/busybox', '1'],
    ['/v2/web/manifests/1?ns=127.0.0.1:5000', '127.0.0.1:5000', 'web', '1'],
    ['/v2/a.b/web/manifests/1?ns=quay.io', 'quay.io', 'a.b/web', '1'],
    ['/v2/library/busybox/manifests/1?ns=registry-1.docker.io', 'docker.io', 'library/busybox', '1'],
    [`/v2/quay.io/manifests/manifests/manifests/sha256:${hex}`, 'quay.io', 'manifests/manifests', `sha256:${hex}`],
  ])('%s', (path, domain, repository, target) => {
    expect(read(path)).toMatchObject({ kind: 'manifest', repository: { domain, path: repository }, target });
  });

  it('knows the other requests', () => {
    expect(read('/v2/').kind).toBe('base');
    expect(read(`/v2/quay.io/app/blobs/sha256:${hex}`)).toMatchObject({ kind: 'blob', digest: `sha256:${hex}` });
    expect(read('/v2/quay.io/app/tags/list?n=1')).toMatchObject({ kind: 'tags', name: 'quay.io/app' });
    expect(read(`/v2/quay.io/app/referrers/sha256:${hex}`).kind).toBe('referrers');
  });

  it.each([
    ['/', 404, 'UNSUPPORTED'],
    ['/v1/x', 404, 'UNSUPPORTED'],
    ['/v2/_catalog', 404, 'UNSUPPORTED'],
    ['/v2/app/blobs/uploads/x', 404, 'UNSUPPORTED'],
    ['/v2/app/blobs/sha256:x', 400, 'DIGEST_INVALID'],
    ['/v2/App/manifests/x', 400, 'NAME_INVALID'],
    ['/v2/..%2f..%2fetc/manifests/x', 400, 'NAME_INVALID'],
    ['/v2/quay.io//manifests/x', 400, 'NAME_INVALID'],
    ['/v2/app/manifests/..%2f..', 404, 'MANIFEST_UNKNOWN'],
    ['/v2/app/manifests/%ff', 400, 'NAME_INVALID'],
    ['/v2/app/manifests/x?ns=a/b', 400, 'NAME_INVALID'],
    ['/v2/app/manifests/x?ns=user@host', 400, 'NAME_INVALID'],
    ['/v2/app/manifests/x?ns=plain', 400, 'NAME_INVALID'],
    ['/v2/app/manifests/x?ns=', 400, 'NAME_INVALID'],
    [`/v2/${'a/'.repeat(600)}b/manifests/x`, 404, 'UNSUPPORTED'],
  ])('refuses %s', (path, status, code) => {
    let told: unknown;
    try {
      read(path);
    } catch (error) {
      told = error;
    }
    expect(told).toBeInstanceOf(OciError);
    expect(told).toMatchObject({ status, code });
  });
});
