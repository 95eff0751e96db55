import { invalidArgument } from '@flotilla/errors';
import type { OciSeccomp, OciSyscallArgument, OciSyscallRule } from './oci-spec.js';

/** What decides which rules of a profile apply. */
export interface SeccompTarget {
  capabilities: readonly string[];
  /** Go's name of the architecture. */
  arch: string;
  kernel: { major: number; minor: number };
}

/** When a rule applies, or does not. */
export interface RuleFilter {
  caps: string[];
  arches: string[];
  minKernel?: { major: number; minor: number };
}

export interface ProfileRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args: OciSyscallArgument[];
  includes: RuleFilter;
  excludes: RuleFilter;
}

/** A seccomp profile in Docker's form: rules with conditions on capabilities, architecture and kernel. */
export interface SeccompProfile {
  defaultAction: string;
  defaultErrnoRet?: number;
  /** Used as they are; else `archMap` gives them. */
  architectures: string[];
  archMap: { architecture: string; subArchitectures: string[] }[];
  flags: string[];
  rules: ProfileRule[];
}

/**
 * Reads a profile: Docker's format, which has the OCI one as a special case.
 *
 * @throws EngineError `invalidArgument` in Docker's words
 */
export function parseSeccompProfile(json: string): SeccompProfile {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (cause) {
    throw invalidArgument(`Decoding seccomp profile failed: ${cause instanceof Error ? cause.message : ''}`, { cause });
  }
  const profile = objectOf(value, 'profile');
  const architectures = stringsOf(profile['architectures'], 'architectures');
  const archMap = listOf(profile['archMap'], 'archMap').map((entry) => {
    const item = objectOf(entry, 'archMap');
    return {
      architecture: stringOf(item['architecture'], 'architecture'),
      subArchitectures: stringsOf(item['subArchitectures'], 'subArchitectures'),
    };
  });
  if (architectures.length > 0 && archMap.length > 0) {
    throw invalidArgument(
      "both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'",
    );
  }
  const defaultErrnoRet = numberOf(profile['defaultErrnoRet'], 'defaultErrnoRet');
  return {
    defaultAction: stringOf(profile['defaultAction'], 'defaultAction'),
    ...(defaultErrnoRet === undefined ? {} : { defaultErrnoRet }),
    architectures,
    archMap,
    flags: stringsOf(profile['flags'], 'flags'),
    rules: listOf(profile['syscalls'], 'syscalls').map(parseRule),
  };
}

function parseRule(value: unknown): ProfileRule {
  const rule = objectOf(value, 'syscalls');
  const names = stringsOf(rule['names'], 'names');
  const name = rule['name'] === undefined || rule['name'] === '' ? undefined : stringOf(rule['name'], 'name');
  if (name !== undefined && names.length > 0) {
    throw invalidArgument("both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'");
  }
  const errnoRet = numberOf(rule['errnoRet'], 'errnoRet');
  return {
    names: name === undefined ? names : [name],
    action: stringOf(rule['action'], 'action'),
    ...(errnoRet === undefined ? {} : { errnoRet }),
    args: listOf(rule['args'], 'args').map((item) => {
      const argument = objectOf(item, 'args');
      return {
        index: numberOf(argument['index'], 'index') ?? 0,
        value: BigInt(numberOf(argument['value'], 'value') ?? 0),
        valueTwo: BigInt(numberOf(argument['valueTwo'], 'valueTwo') ?? 0),
        op: stringOf(argument['op'], 'op'),
      };
    }),
    includes: parseFilter(rule['includes']),
    excludes: parseFilter(rule['excludes']),
  };
}

function parseFilter(value: unknown): RuleFilter {
  if (value === undefined || value === null) return { caps: [], arches: [] };
  const filter = objectOf(value, 'filter');
  const minKernel = filter['minKernel'];
  const version = typeof minKernel === 'string' ? /^(\d+)\.(\d+)/.exec(minKernel) : undefined;
  if (version === null) throw malformed('minKernel');
  return {
    caps: stringsOf(filter['caps'], 'caps'),
    arches: stringsOf(filter['arches'], 'arches'),
    ...(version === undefined ? {} : { minKernel: { major: Number(version[1]), minor: Number(version[2]) } }),
  };
}

const nativeArchitectures: Record<string, string> = {
  '386': 'SCMP_ARCH_X86',
  amd64: 'SCMP_ARCH_X86_64',
  arm: 'SCMP_ARCH_ARM',
  arm64: 'SCMP_ARCH_AARCH64',
  ppc64le: 'SCMP_ARCH_PPC64LE',
  riscv64: 'SCMP_ARCH_RISCV64',
  s390x: 'SCMP_ARCH_S390X',
};

/** What of a profile holds for one container, in the runtime's form. */
export function resolveSeccompProfile(profile: SeccompProfile, target: SeccompTarget): OciSeccomp {
  const native = nativeArchitectures[target.arch];
  const entry = profile.archMap.find(({ architecture }) => architecture === native);
  const mapped = entry === undefined ? [] : [entry.architecture, ...entry.subArchitectures];
  const architectures = profile.architectures.length > 0 ? profile.architectures : mapped;
  return {
    defaultAction: profile.defaultAction,
    ...(profile.defaultErrnoRet === undefined ? {} : { defaultErrnoRet: profile.defaultErrnoRet }),
    ...(architectures.length === 0 ? {} : { architectures }),
    ...(profile.flags.length === 0 ? {} : { flags: profile.flags }),
    syscalls: profile.rules.filter((rule) => rule.names.length > 0 && applies(rule, target)).map(toOciRule),
  };
}

function toOciRule({ names, action, errnoRet, args }: ProfileRule): OciSyscallRule {
  return {
    names,
    action,
    ...(errnoRet === undefined ? {} : { errnoRet }),
    ...(args.length === 0 ? {} : { args }),
  };
}

function applies({ includes, excludes }: ProfileRule, { capabilities, arch, kernel }: SeccompTarget): boolean {
  if (excludes.arches.includes(arch) || excludes.caps.some((name) => capabilities.includes(name))) return false;
  if (excludes.minKernel !== undefined && !isOlder(kernel, excludes.minKernel)) return false;
  if (includes.arches.length > 0 && !includes.arches.includes(arch)) return false;
  if (includes.minKernel !== undefined && isOlder(kernel, includes.minKernel)) return false;
  return includes.caps.every((name) => capabilities.includes(name));
}

function isOlder(kernel: { major: number; minor: number }, than: { major: number; minor: number }): boolean {
  return kernel.major < than.major || (kernel.major === than.major && kernel.minor < than.minor);
}

const malformed = (field: string) => invalidArgument(`Decoding seccomp profile failed: invalid value of ${field}`);

function objectOf(value: unknown, field: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw malformed(field);
  return value as Record<string, unknown>;
}

function listOf(value: unknown, field: string): unknown[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw malformed(field);
  return value;
}

function stringsOf(value: unknown, field: string): string[] {
  return listOf(value, field).map((item) => stringOf(item, field));
}

function stringOf(value: unknown, field: string): string {
  if (typeof value !== 'string') throw malformed(field);
  return value;
}

function numberOf(value: unknown, field: string): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw malformed(field);
  return value;
}
