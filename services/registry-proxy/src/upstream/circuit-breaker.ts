import { dropOldest } from './drop-oldest.js';

/** When an endpoint that fails is spared. */
export interface CircuitRules {
  /** Failures in a row that open it. */
  readonly failures: number;
  /** How long it stays open before one request may try again; doubled after each try that fails. */
  readonly openMs: number;
  readonly maxOpenMs: number;
}

interface Circuit {
  failures: number;
  lastFailure: unknown;
  openMs: number;
  /** 0: closed. */
  openUntil: number;
  isProbed: boolean;
}

const maxCircuits = 1000;

/**
 * Remembers which endpoints fail, so that a request that has another way (a mirror, the cache) does not wait for them.
 *
 * Closed until `failures` in a row; then open, and after `openMs` half open: one request tries, and closes or reopens it.
 */
export class CircuitBreaker {
  readonly #rules: CircuitRules;
  readonly #now: () => number;
  readonly #circuits = new Map<string, Circuit>();

  constructor(rules: CircuitRules, now: () => number = Date.now) {
    this.#rules = rules;
    this.#now = now;
  }

  /** The last failure if the endpoint should be spared now. Undefined lets the caller try: it must tell how that went. */
  refusal(endpoint: string): unknown {
    const circuit = this.#circuits.get(endpoint);
    if (circuit === undefined || circuit.openUntil === 0) return undefined;
    if (this.#now() < circuit.openUntil || circuit.isProbed) return circuit.lastFailure;
    circuit.isProbed = true;
    return undefined;
  }

  succeeded(endpoint: string): void {
    this.#circuits.delete(endpoint);
  }

  /** It neither failed nor worked, e.g. the caller left. */
  abandoned(endpoint: string): void {
    const circuit = this.#circuits.get(endpoint);
    if (circuit !== undefined) circuit.isProbed = false;
  }

  failed(endpoint: string, failure: unknown): void {
    const { failures, openMs, maxOpenMs } = this.#rules;
    const circuit = this.#circuits.get(endpoint) ?? {
      failures: 0,
      lastFailure: failure,
      openMs,
      openUntil: 0,
      isProbed: false,
    };
    // Newest last, so that the bound drops who has been silent longest.
    this.#circuits.delete(endpoint);
    this.#circuits.set(endpoint, circuit);
    circuit.failures += 1;
    circuit.lastFailure = failure;
    if (circuit.isProbed) circuit.openMs = Math.min(circuit.openMs * 2, maxOpenMs);
    circuit.isProbed = false;
    if (circuit.failures >= failures) circuit.openUntil = this.#now() + circuit.openMs;
    dropOldest(this.#circuits, maxCircuits);
  }

  /** Names of the endpoints that are open or half open. */
  get open(): string[] {
    return [...this.#circuits].filter(([, { openUntil }]) => openUntil > 0).map(([name]) => name);
  }
}
