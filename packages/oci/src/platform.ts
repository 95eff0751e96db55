import { invalidArgument } from '@flotilla/errors';

/** Operating system and processor in Go's words; an empty variant is the architecture's usual one. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
  readonly osVersion?: string;
}

const component = /^[A-Za-z0-9_.-]+$/;
const architectures: ReadonlyMap<NodeJS.Architecture, string> = new Map<NodeJS.Architecture, string>([
  ['x64', 'amd64'],
  ['arm64', 'arm64'],
  ['arm', 'arm'],
  ['ia32', '386'],
  ['ppc64', 'ppc64le'],
  ['riscv64', 'riscv64'],
  ['s390x', 's390x'],
]);

/** The platform of this machine. */
export function hostPlatform(): Platform {
  return normalizePlatform({ os: 'linux', architecture: architectures.get(process.arch) ?? process.arch, variant: '' });
}

/**
 * Parse `os[/arch[/variant]]` or a lone architecture, as `--platform` takes it.
 *
 * @throws EngineError `invalidArgument` with containerd's phrases.
 */
export function parsePlatform(text: string): Platform {
  const parts = text.split('/');
  if (parts.length > 3 || text.length > 256) {
    throw invalidArgument(`"${text.slice(0, 256)}" is an invalid OS/Arch/Variant format`);
  }
  for (const part of parts) {
    if (!component.test(part)) {
      throw invalidArgument(
        `"${part}" is an invalid component of "${text}": platform specifier component must match "^[A-Za-z0-9_.-]+$": invalid argument`,
      );
    }
  }
  const host = hostPlatform();
  const [first = '', second, third = ''] = parts;
  if (second === undefined) {
    if (knownSystems.has(first.toLowerCase())) return { ...host, os: first.toLowerCase() };
    const { architecture, variant } = normalizePlatform({ os: host.os, architecture: first, variant: '' });
    if (!knownArchitectures.has(architecture)) {
      throw invalidArgument(`"${text}": unknown operating system or architecture: invalid argument`);
    }
    return { os: host.os, architecture, variant };
  }
  return normalizePlatform({ os: first, architecture: second, variant: third });
}

const knownSystems = new Set([
  'linux',
  'windows',
  'darwin',
  'freebsd',
  'netbsd',
  'openbsd',
  'solaris',
  'aix',
  'android',
]);
const knownArchitectures = new Set([
  '386', 'amd64', 'arm', 'arm64', 'loong64', 'mips', 'mips64', 'mips64le', 'mipsle', 'ppc64', 'ppc64le', 'riscv64', 's390x', 'wasm',
]); // prettier-ignore

/** Lower case, aliases resolved (x86_64 is amd64), the usual variant (arm64/v8, amd64/v1) left out and arm's made explicit (v7). */
export function normalizePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase() === 'macos' ? 'darwin' : platform.os.toLowerCase();
  let architecture = platform.architecture.toLowerCase();
  let variant = platform.variant.toLowerCase();
  switch (architecture) {
    case 'i386':
      architecture = '386';
      variant = '';
      break;
    case 'x86_64':
    case 'x86-64':
    case 'amd64':
      architecture = 'amd64';
      if (variant === 'v1') variant = '';
      break;
    case 'aarch64':
    case 'arm64':
      architecture = 'arm64';
      if (variant === '8' || variant === 'v8') variant = '';
      break;
    case 'armhf':
      architecture = 'arm';
      variant = 'v7';
      break;
    case 'armel':
      architecture = 'arm';
      variant = 'v6';
      break;
    case 'arm':
      if (variant === '' || variant === '7') variant = 'v7';
      else if (/^[568]$/.test(variant)) variant = `v${variant}`;
      break;
    default:
      break;
  }
  return { ...platform, os, architecture, variant };
}

/** `os/arch[/variant]`, as Docker's messages show it. */
export function formatPlatform({ os, architecture, variant }: Platform): string {
  return [os === '' ? 'unknown' : os, architecture, variant].filter((part) => part !== '').join('/');
}

/**
 * How well `candidate` runs on `wanted`: 0 is exact, higher is worse, undefined is not at all. A processor also runs
 * lower variants (arm/v7 runs v6 and v5, arm64 runs 32-bit arm, amd64/v3 runs v2 and v1): containerd's platforms.Only.
 */
export function platformDistance(wanted: Platform, candidate: Platform): number | undefined {
  const candidates = runnable(normalizePlatform(wanted));
  const { os, architecture, variant } = normalizePlatform(candidate);
  if (os !== normalizePlatform(wanted).os) return undefined;
  const index = candidates.findIndex((it) => it.architecture === architecture && it.variant === variant);
  return index < 0 ? undefined : index;
}

/** Whether an image of `candidate` runs on `wanted`. */
export function platformMatches(wanted: Platform, candidate: Platform): boolean {
  return platformDistance(wanted, candidate) !== undefined;
}

function runnable({ os, architecture, variant }: Platform): Platform[] {
  const of = (arch: string, variants: string[]): Platform[] =>
    variants.map((it) => ({ os, architecture: arch, variant: it }));
  const armDown = (from: number): string[] => ['v8', 'v7', 'v6', 'v5'].slice(8 - from);
  const level = Number(/^v(\d)$/.exec(variant)?.[1] ?? 0);
  switch (architecture) {
    case 'arm':
      return level >= 5 && level <= 8 ? of('arm', armDown(level)) : of('arm', [variant]);
    case 'arm64':
      return [...of('arm64', variant === '' ? [''] : [variant, '']), ...of('arm', armDown(8))];
    case 'amd64':
      return of('amd64', level > 1 ? [...Array.from({ length: level - 1 }, (_, i) => `v${level - i}`), ''] : [variant]);
    default:
      return of(architecture, [variant]);
  }
}
