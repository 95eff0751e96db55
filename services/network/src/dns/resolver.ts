import {
  MalformedQuery,
  addressAnswer,
  emptyAnswer,
  parseQuestion,
  pointerAnswer,
  recordTypes,
  responseCodes,
  reverseName,
} from './dns-message.js';
import type { Question } from './dns-message.js';
import type { Forwarder } from './forwarder.js';
import type { NameIndex } from './name-index.js';

export interface ResolverDeps {
  names: NameIndex;
  forwarder: Forwarder;
  /** Name servers for what is not a container's name, for one container. */
  upstreams: (containerId: string) => readonly string[];
  /** Whether names without dots are never asked of others: the container's resolver completes them (option `ndots`). */
  completesNames: (containerId: string) => boolean;
}

const ttlSeconds = 600;
const maxTcpMessage = 65535;

/** Answers the queries of containers: names of their networks from memory, the rest from outside. */
export class Resolver {
  readonly #deps: ResolverDeps;

  constructor(deps: ResolverDeps) {
    this.#deps = deps;
  }

  /** The answer to a query; undefined when it deserves none. Known names are answered without waiting. */
  answer(containerId: string, query: Buffer, transport: 'udp' | 'tcp'): Buffer | Promise<Buffer> | undefined {
    let question: Question;
    try {
      question = parseQuestion(query);
    } catch (error) {
      if (!(error instanceof MalformedQuery)) throw error;
      return error.code === undefined ? undefined : emptyAnswer(query, undefined, error.code);
    }
    const limit = transport === 'udp' ? question.udpSize : maxTcpMessage;
    return (
      this.#fromNames(containerId, query, question, limit) ?? this.#fromOutside(containerId, query, question, transport)
    );
  }

  #fromNames(containerId: string, query: Buffer, question: Question, limit: number): Buffer | undefined {
    const { names } = this.#deps;
    if (question.class !== 1) return undefined;
    if (question.type === recordTypes.ptr) {
      const address = reverseName(question.name);
      const name = address === undefined ? undefined : names.reverse(containerId, address);
      return name === undefined ? undefined : pointerAnswer(query, question, name, ttlSeconds);
    }
    const family = question.type === recordTypes.aaaa ? 6 : 4;
    const addresses = names.lookup(containerId, question.name, family);
    if (addresses === undefined) return undefined;
    // The name is ours: other record types of it exist nowhere.
    const isAddress = question.type === recordTypes.a || question.type === recordTypes.aaaa;
    return addressAnswer(query, question, isAddress ? addresses : [], ttlSeconds, limit);
  }

  #fromOutside(
    containerId: string,
    query: Buffer,
    question: Question,
    transport: 'udp' | 'tcp',
  ): Buffer | Promise<Buffer> {
    const { names, forwarder, upstreams, completesNames } = this.#deps;
    const failure = (): Buffer => emptyAnswer(query, question, responseCodes.serverFailure);
    if (!names.reachesOutside(containerId)) return failure();
    const isAddress = question.type === recordTypes.a || question.type === recordTypes.aaaa;
    if (isAddress && !question.name.includes('.') && completesNames(containerId))
      return emptyAnswer(query, question, responseCodes.noError);
    const servers = upstreams(containerId);
    return forwarder
      .ask({ asker: containerId, query: query.subarray(0, question.messageEnd), question, servers, transport })
      .then((answer) => answer ?? failure());
  }
}
