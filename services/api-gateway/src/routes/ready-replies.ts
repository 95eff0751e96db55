import { MAX_API_VERSION, negotiateApiVersion } from '@flotilla/docker-api';
import type { ApiVersion } from '@flotilla/docker-api';
import type { ReadyReplies, ReadyReply } from '../http/fast-lane.js';
import type { ReadModel } from '../model/read-model.js';

const VERSIONED = /^\/v(\d{1,3}\.\d{1,3})(\/.*)$/;
const INSPECT = /^\/containers\/([0-9A-Za-z][0-9A-Za-z_.-]*)\/json$/;
const MAX_KNOWN_TARGETS = 1_000;

/** What a target asks for, worked out once. */
type Question =
  | { readonly kind: 'list'; readonly all: boolean; readonly version: ApiVersion }
  | { readonly kind: 'inspect'; readonly name: string; readonly version: ApiVersion };

/**
 * The requests that the read model answers at once: `/_ping`, the plain container list and a container's inspect.
 * Everything else, also every refusal, takes the ordinary way and so has one place of its own.
 */
export function readyReplies(
  model: Pick<ReadModel, 'containerListBody' | 'peekContainer' | 'containerBody'>,
  options: { minVersion: ApiVersion; baseHeaders: readonly string[]; pingHeaders: readonly string[] },
): ReadyReplies {
  const ping: ReadyReply = { head: headOf(options.pingHeaders), body: Buffer.from('OK') };
  const jsonHead = headOf([...options.baseHeaders, 'Content-Type', 'application/json']);
  const questions = new Map<string, Question>();
  const json = (body: Buffer | undefined): ReadyReply | undefined =>
    body === undefined ? undefined : { head: `${jsonHead}Content-Length: ${body.length}\r\n`, body };

  return (target) => {
    if (target === '/_ping') return ping;
    let question = questions.get(target);
    if (question === undefined) {
      question = questionOf(target, options.minVersion);
      if (question === undefined) return undefined;
      if (questions.size >= MAX_KNOWN_TARGETS) questions.clear();
      questions.set(target, question);
    }
    if (question.kind === 'list') return json(model.containerListBody(question.all, question.version));
    const object = model.peekContainer(question.name);
    return object === undefined ? undefined : json(model.containerBody(object, question.version));
  };
}

function questionOf(target: string, minVersion: ApiVersion): Question | undefined {
  const versioned = VERSIONED.exec(target);
  const given = versioned?.[1];
  const rest = versioned?.[2] ?? target;
  let version = MAX_API_VERSION;
  if (given !== undefined) {
    try {
      version = negotiateApiVersion(given, minVersion, MAX_API_VERSION);
    } catch {
      return undefined; // the ordinary way says why
    }
  }
  if (rest === '/containers/json') return { kind: 'list', all: false, version };
  if (rest === '/containers/json?all=1') return { kind: 'list', all: true, version };
  const name = INSPECT.exec(rest)?.[1];
  return name === undefined ? undefined : { kind: 'inspect', name, version };
}

function headOf(headers: readonly string[]): string {
  let text = 'HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n';
  for (let i = 0; i + 1 < headers.length; i += 2) text += `${headers[i] ?? ''}: ${headers[i + 1] ?? ''}\r\n`;
  return text;
}
