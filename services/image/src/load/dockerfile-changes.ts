import { invalidArgument } from '@flotilla/errors';
import type { Healthcheck, RunConfig } from '@flotilla/oci';

/**
 * Apply `--change` instructions of import and commit to a configuration: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK,
 * LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR (moby builder/dockerfile BuildFromConfig).
 *
 * @throws EngineError `invalidArgument` for another instruction or a malformed one.
 */
export function applyChanges(run: RunConfig, changes: readonly string[]): RunConfig {
  const lines = changes.flatMap((text) => text.split(/\r?\n/));
  let setsCommand = false;
  return lines.reduce((before, line) => {
    const after = applyLine(before, line);
    if (/^\s*cmd\b/i.test(line)) setsCommand = true;
    // A new entrypoint does not go with the command of the old one.
    return /^\s*entrypoint\b/i.test(line) && !setsCommand ? { ...after, cmd: undefined } : after;
  }, run);
}

function applyLine(run: RunConfig, line: string): RunConfig {
  const text = line.trim();
  if (text === '' || text.startsWith('#')) return run;
  const [, word = '', rest = ''] = /^(\S+)\s*([\s\S]*)$/.exec(text) ?? [];
  const change = instructions.get(word.toUpperCase());
  if (change === undefined) throw invalidArgument(`${word.toLowerCase()} is not a valid change command`);
  if (rest === '' && !mayBeEmpty.has(word.toUpperCase())) {
    throw invalidArgument(`${word.toUpperCase()} requires at least one argument`);
  }
  return change(run, rest);
}

const mayBeEmpty = new Set(['CMD', 'ENTRYPOINT']);

const instructions: ReadonlyMap<string, (run: RunConfig, rest: string) => RunConfig> = new Map<
  string,
  (run: RunConfig, rest: string) => RunConfig
>([
  ['CMD', (run, rest) => ({ ...run, cmd: command(rest, run.shell) })],
  ['ENTRYPOINT', (run, rest) => ({ ...run, entrypoint: command(rest, run.shell) })],
  ['ENV', (run, rest) => ({ ...run, env: [...pairs(rest, 'ENV')].reduce(setEnv, [...run.env]) })],
  ['EXPOSE', (run, rest) => ({ ...run, exposedPorts: union(run.exposedPorts, words(rest).flatMap(ports)) })],
  ['HEALTHCHECK', (run, rest) => ({ ...run, healthcheck: healthcheck(rest) })],
  ['LABEL', (run, rest) => ({ ...run, labels: new Map([...run.labels, ...pairs(rest, 'LABEL')]) })],
  ['ONBUILD', (run, rest) => ({ ...run, onBuild: [...run.onBuild, rest] })],
  ['STOPSIGNAL', (run, rest) => ({ ...run, stopSignal: single(rest, 'STOPSIGNAL') })],
  ['USER', (run, rest) => ({ ...run, user: single(rest, 'USER') })],
  ['VOLUME', (run, rest) => ({ ...run, volumes: union(run.volumes, json(rest) ?? words(rest)) })],
  ['WORKDIR', (run, rest) => ({ ...run, workingDir: joinPath(run.workingDir, unquote(rest)) })],
]);

/** JSON form, or the shell form that runs by the image's shell. */
function command(rest: string, shell: readonly string[]): string[] {
  return json(rest) ?? (rest === '' ? [] : [...(shell.length === 0 ? ['/bin/sh', '-c'] : shell), rest]);
}

function json(rest: string): string[] | undefined {
  if (!rest.startsWith('[')) return undefined;
  try {
    const value: unknown = JSON.parse(rest);
    if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  } catch {
    // Not JSON: the shell form may well begin with a bracket.
  }
  return undefined;
}

/** Words as a Dockerfile has them: quotes group, a backslash takes the next character. */
function words(text: string): string[] {
  const found: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let at = 0; at < text.length; at += 1) {
    const char = text.charAt(at);
    if (char === '\\' && quote !== "'" && at + 1 < text.length) {
      at += 1;
      word = (word ?? '') + text.charAt(at);
    } else if (quote !== '') {
      if (char === quote) quote = '';
      else word = (word ?? '') + char;
    } else if (char === '"' || char === "'") {
      quote = char;
      word ??= '';
    } else if (/\s/.test(char)) {
      if (word !== undefined) found.push(word);
      word = undefined;
    } else word = (word ?? '') + char;
  }
  if (quote !== '')
    throw invalidArgument(
      `unexpected end of statement while looking for matching ${quote === '"' ? 'double' : 'single'}-quote`,
    );
  if (word !== undefined) found.push(word);
  return found;
}

function unquote(text: string): string {
  return words(text).join(' ');
}

function single(rest: string, name: string): string {
  const [only, ...others] = words(rest);
  if (only === undefined || others.length > 0) throw invalidArgument(`${name} requires exactly one argument`);
  return only;
}

/** `a=b c="d e"`, or the old form `a b c`. */
function pairs(rest: string, name: string): [string, string][] {
  const [first = ''] = rest.split(/\s/, 1);
  if (!first.includes('=')) {
    const value = rest.slice(first.length).trim();
    if (value === '') throw invalidArgument(`${name} must have two arguments`);
    return [[first, value]];
  }
  return words(rest).map((word) => {
    const at = word.indexOf('=');
    if (at < 0)
      throw invalidArgument(`Syntax error - can't find = in ${JSON.stringify(word)}. Must be of the form: name=value`);
    if (at === 0) throw invalidArgument(`${name} names can not be blank`);
    return [word.slice(0, at), word.slice(at + 1)];
  });
}

function setEnv(env: string[], [name, value]: [string, string]): string[] {
  const at = env.findIndex((it) => it === name || it.startsWith(`${name}=`));
  if (at < 0) env.push(`${name}=${value}`);
  else env[at] = `${name}=${value}`;
  return env;
}

function ports(word: string): string[] {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp|sctp))?$/i.exec(word);
  const [first, last] = [Number(match?.[1]), Number(match?.[2] ?? match?.[1])];
  if (match === null || first < 1 || last > 65_535 || last < first) {
    throw invalidArgument(`invalid containerPort: ${word.slice(0, 100)}`);
  }
  const protocol = (match[3] ?? 'tcp').toLowerCase();
  return Array.from({ length: last - first + 1 }, (_, i) => `${first + i}/${protocol}`);
}

function union(a: readonly string[], b: readonly string[]): string[] {
  return [...new Set([...a, ...b])];
}

function joinPath(base: string, path: string): string {
  const whole = path.startsWith('/') ? path : `${base === '' ? '/' : base}/${path}`;
  const parts: string[] = [];
  for (const part of whole.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return `/${parts.join('/')}`;
}

const units: ReadonlyMap<string, number> = new Map([
  ['ns', 1],
  ['us', 1e3],
  ['µs', 1e3],
  ['ms', 1e6],
  ['s', 1e9],
  ['m', 60e9],
  ['h', 3600e9],
]);

function duration(flag: string, text: string): number {
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map(([it]) => it).join('') !== text) {
    throw invalidArgument(`time: invalid duration ${JSON.stringify(text)}`);
  }
  const total = parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * (units.get(unit ?? '') ?? 0), 0);
  if (total < 1e6) throw invalidArgument(`Interval ${JSON.stringify(flag)} cannot be less than 1ms`);
  return Math.round(total);
}

function healthcheck(rest: string): Healthcheck {
  let text = rest;
  const flags = new Map<string, string>();
  for (let match = /^--([a-z-]+)=(\S+)\s*/.exec(text); match !== null; match = /^--([a-z-]+)=(\S+)\s*/.exec(text)) {
    flags.set(match[1] ?? '', match[2] ?? '');
    text = text.slice(match[0].length);
  }
  const time = (name: string): number => {
    const value = flags.get(name);
    flags.delete(name);
    return value === undefined ? 0 : duration(name, value);
  };
  const health = {
    interval: time('interval'),
    timeout: time('timeout'),
    startPeriod: time('start-period'),
    startInterval: time('start-interval'),
    retries: Number(flags.get('retries') ?? 0),
  };
  flags.delete('retries');
  const [unknown] = flags.keys();
  if (unknown !== undefined) throw invalidArgument(`Unknown flag: ${unknown}`);
  if (!Number.isSafeInteger(health.retries) || health.retries < 0) {
    throw invalidArgument('--retries must be at least 1');
  }
  if (text.toUpperCase() === 'NONE') return { ...health, test: ['NONE'] };
  const [, form = '', run = ''] = /^(\S+)\s*([\s\S]*)$/.exec(text) ?? [];
  if (form.toUpperCase() !== 'CMD')
    throw invalidArgument(`Unknown type ${JSON.stringify(form)} in HEALTHCHECK (try CMD)`);
  const list = json(run);
  return { ...health, test: list === undefined ? ['CMD-SHELL', run] : ['CMD', ...list] };
}
