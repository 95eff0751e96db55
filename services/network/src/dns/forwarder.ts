import { isIP } from 'node:net';
import type { Question } from './dns-message.js';
import { responseCodeOf, responseCodes } from './dns-message.js';
import { askServer } from './upstream-query.js';

const PORT = 53;
/** As many as a resolver file can name (MAXNS of resolv.h). */
const maxServers = 3;
/** A server that has said nothing for so long is not the only one asked any more. */
const patienceMs = 1000;
/** Below the 5 s after which resolvers give an answer up, so that they get one. */
const totalTimeoutMs = 4000;
/** How long a silent server is asked last. */
const penaltyMs = 30_000;
const maxPenalties = 256;
const maxInFlight = 1024;
const maxInFlightPerAsker = 128;

/** A query to pass on. */
export interface ForwardedQuery {
  /** Container that asks; its share of the queries on their way is limited. */
  asker: string;
  query: Buffer;
  question: Question;
  /** Addresses, in the order in which to try them. */
  servers: readonly string[];
  transport: 'udp' | 'tcp';
}

/** Passes queries on to other name servers. */
export class Forwarder {
  readonly #port: number;
  #inFlight = 0;
  readonly #inFlightOf = new Map<string, number>();
  /** Servers that did not answer, until when they are asked last. */
  readonly #silentUntil = new Map<string, number>();

  /** @param port where the other name servers listen; only tests have another than 53 */
  constructor(port = PORT) {
    this.#port = port;
  }

  /** Queries on their way. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /**
   * The first usable answer of any server. The next one is asked when one fails, refuses or hesitates. Undefined when none
   * answers in time, and at once when the asker, or all of them together, wait for too many answers already: a server that
   * hangs costs others nothing.
   */
  async ask(forwarded: ForwardedQuery): Promise<Buffer | undefined> {
    const own = this.#inFlightOf.get(forwarded.asker) ?? 0;
    if (this.#inFlight >= maxInFlight || own >= maxInFlightPerAsker) return undefined;
    this.#inFlight++;
    this.#inFlightOf.set(forwarded.asker, own + 1);
    try {
      return await this.#race(forwarded, this.#inOrder(forwarded.servers));
    } finally {
      this.#inFlight--;
      const left = (this.#inFlightOf.get(forwarded.asker) ?? 1) - 1;
      if (left === 0) this.#inFlightOf.delete(forwarded.asker);
      else this.#inFlightOf.set(forwarded.asker, left);
    }
  }

  #race({ query, question, transport }: ForwardedQuery, servers: readonly string[]): Promise<Buffer | undefined> {
    return new Promise((resolve) => {
      /** Open questions, with what ends them. */
      const open = new Map<string, () => void>();
      const waiting = [...servers];
      let patience: NodeJS.Timeout | undefined;
      const settle = (answer: Buffer | undefined): void => {
        clearTimeout(patience);
        clearTimeout(deadline);
        for (const cancel of open.values()) cancel();
        resolve(answer);
      };
      const askNext = (): void => {
        clearTimeout(patience);
        const server = waiting.shift();
        if (server === undefined) {
          if (open.size === 0) settle(undefined);
          return;
        }
        patience = setTimeout(() => {
          if (open.has(server)) this.#punish(server);
          askNext();
        }, patienceMs);
        const cancel = askServer({ query, question, server, port: this.#port, transport }, (answer) => {
          open.delete(server);
          if (answer !== undefined) this.#silentUntil.delete(server);
          if (answer !== undefined && isUsable(answer)) settle(answer);
          else askNext();
        });
        open.set(server, cancel);
      };
      const deadline = setTimeout(() => {
        for (const server of open.keys()) this.#punish(server);
        settle(undefined);
      }, totalTimeoutMs);
      askNext();
    });
  }

  #inOrder(servers: readonly string[]): string[] {
    const distinct = [...new Set(servers)].filter((server) => isIP(server) !== 0).slice(0, maxServers);
    const now = Date.now();
    const isSilent = (server: string): boolean => (this.#silentUntil.get(server) ?? 0) > now;
    return [...distinct.filter((server) => !isSilent(server)), ...distinct.filter(isSilent)];
  }

  #punish(server: string): void {
    if (this.#silentUntil.size >= maxPenalties) this.#silentUntil.clear();
    this.#silentUntil.set(server, Date.now() + penaltyMs);
  }
}

/** Other codes say something of the server, not of the name: another one may know better. */
function isUsable(answer: Buffer): boolean {
  const code = responseCodeOf(answer);
  return code === responseCodes.noError || code === responseCodes.nameError;
}
