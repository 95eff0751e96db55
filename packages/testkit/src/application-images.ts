import type { FixtureConfig } from './image-fixtures.js';

/** One layer: Debian packages (none of their scripts is run), files of the application, directories. */
export interface LayerRecipe {
  readonly packages: readonly string[];
  /** Path in the image -> file of the application. */
  readonly files?: Readonly<Record<string, string>>;
  /** Path -> the user and group that owns it; only they enter. */
  readonly directories?: Readonly<Record<string, number>>;
}

/** One image: its layer over the base. */
export interface ImageRecipe extends LayerRecipe {
  /** `repository:tag`. */
  readonly name: string;
  readonly config: FixtureConfig;
}

const [POSTGRES, REDIS, SHOP] = [70, 71, 72];
const ENV = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin'];
const SYSTEMD_LIBRARY = ['libsystemd0', 'libcap2', 'libgcrypt20', 'libgpg-error0', 'liblzma5', 'liblz4-1', 'libzstd1'];

/** Suite that the packages come from. */
export const APPLICATION_SUITE = 'bookworm' as const;

/** What no part of the application reads: byte code for a compiler that is off, types, character sets, init scripts. */
export const APPLICATION_EXCLUDE = [
  ...['*/bitcode', '*/llvmjit*', './usr/share/nodejs/@types', '*/gconv', './etc/init.d', './lib/systemd'],
  './usr/share/zoneinfo/right',
];

/** Lines for `/etc/passwd`; each user has a group of its own. */
export const APPLICATION_USERS: Readonly<Record<string, number>> = {
  'www-data': 33,
  postgres: POSTGRES,
  redis: REDIS,
  shop: SHOP,
};

/** The layer below all of them; busybox is in it. */
export const APPLICATION_BASE: LayerRecipe = {
  packages: ['libc6', 'libgcc-s1', 'libstdc++6', 'zlib1g', 'libssl3', 'libcrypt1', 'libpcre2-8-0', 'libicu72'],
};

export const APPLICATION_IMAGES: readonly ImageRecipe[] = [
  {
    name: 'flotilla-test/nginx:1',
    packages: ['nginx', 'nginx-common'],
    config: { Env: ENV, Cmd: ['nginx', '-g', 'daemon off;'], ExposedPorts: { '80/tcp': {} }, StopSignal: 'SIGQUIT' },
  },
  {
    name: 'flotilla-test/shop:1',
    packages: [
      ...['nodejs', 'libnode108', 'libuv1', 'libc-ares2', 'libnghttp2-14', 'libbrotli1', 'node-undici', 'node-busboy'],
      ...['node-acorn', 'node-cjs-module-lexer', 'node-xtend', 'node-pg', 'node-split2', 'node-redis'],
      ...['node-generic-pool', 'node-yallist'],
    ],
    files: { 'srv/shop.js': 'shop.js', 'srv/worker.js': 'worker.js' },
    config: {
      Env: [...ENV, 'NODE_ENV=production', 'NODE_PATH=/usr/share/nodejs'],
      Cmd: ['node', '/srv/shop.js'],
      User: 'shop',
      WorkingDir: '/srv',
      ExposedPorts: { '3000/tcp': {} },
    },
  },
  {
    name: 'flotilla-test/postgres:15',
    packages: [
      ...['postgresql-15', 'postgresql-client-15', 'libpq5', 'libxml2', 'libuuid1', 'tzdata', 'libreadline8'],
      ...['libtinfo6', 'libldap-2.5-0', 'libsasl2-2', 'libgnutls30', 'libp11-kit0', 'libffi8', 'libidn2-0'],
      ...['libunistring2', 'libtasn1-6', 'libnettle8', 'libhogweed6', 'libgmp10', 'libgssapi-krb5-2', 'libkrb5-3'],
      ...['libk5crypto3', 'libkrb5support0', 'libkeyutils1', 'libcom-err2', 'libpam0g', 'libaudit1', 'libcap-ng0'],
      ...['libselinux1', ...SYSTEMD_LIBRARY],
    ],
    files: { 'usr/local/bin/postgres.sh': 'postgres.sh' },
    directories: { 'var/lib/postgresql/data': POSTGRES },
    config: {
      Env: [...ENV, 'PGDATA=/var/lib/postgresql/data', 'PASSWORD_FILE=/run/secrets/db_password'],
      Entrypoint: ['postgres.sh'],
      User: 'postgres',
      Volumes: { '/var/lib/postgresql/data': {} },
      ExposedPorts: { '5432/tcp': {} },
    },
  },
  {
    name: 'flotilla-test/redis:7',
    packages: ['redis-tools', 'redis-server', 'libjemalloc2', 'liblzf1', 'libatomic1', ...SYSTEMD_LIBRARY],
    directories: { data: REDIS },
    config: {
      Env: ENV,
      Cmd: ['redis-server', '--bind', '*', '-::*', '--protected-mode', 'no', '--save', ''],
      User: 'redis',
      WorkingDir: '/data',
      Volumes: { '/data': {} },
      ExposedPorts: { '6379/tcp': {} },
    },
  },
];
