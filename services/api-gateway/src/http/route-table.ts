import FindMyWay from 'find-my-way';
import type { ApiCall } from './api-call.js';
import type { ApiVersion } from '@flotilla/docker-api';

/** Answers one request. What it throws becomes the error reply, or the end of the stream once a body has begun. */
export type Handler = (call: ApiCall) => Promise<void> | void;

/** HTTP methods of the API. */
export type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE';

/** One endpoint. */
export interface Route {
  readonly method: Method;
  /** Without the version. `{id}` is one segment; `{name...}` may hold slashes, as image names do. */
  readonly path: string;
  readonly handler: Handler;
  /** The oldest version that has the endpoint; before it the page is not found. */
  readonly since?: ApiVersion;
  /** The handler takes the connection over after the request. */
  readonly hijack?: boolean;
}

/** A route that matches a path, with the decoded parameters. */
export interface Match {
  readonly route: Route;
  readonly params: Readonly<Record<string, string | undefined>>;
}

interface GreedyShape {
  readonly prefix: string;
  /** Longest first; the empty suffix takes the whole rest. */
  readonly suffixes: string[];
}

const MAX_PARAM_BYTES = 8192;

/**
 * Finds the route of a request.
 *
 * The router matches segment by segment, so the slashes of a `{name...}` parameter are escaped before it looks: the
 * longest known suffix of the endpoint group ends the name, and a literal path such as `/images/json` stays itself.
 */
export class RouteTable {
  readonly #router = FindMyWay({ maxParamLength: MAX_PARAM_BYTES, onBadUrl: () => undefined });
  readonly #greedy = new Map<string, GreedyShape[]>();
  readonly #literals = new Set<string>();
  /** Every route, in the order given. */
  readonly routes: readonly Route[];

  constructor(routes: readonly Route[]) {
    this.routes = routes;
    for (const route of routes) {
      const path = route.path.replace(/\{(\w+)(\.\.\.)?\}/g, ':$1');
      this.#router.on(route.method, path, () => undefined, route);
      const greedy = /^(.*\/)\{\w+\.\.\.\}(.*)$/.exec(route.path);
      if (greedy === null) {
        if (!route.path.includes('{')) this.#literals.add(`${route.method} ${route.path}`);
        continue;
      }
      this.#addGreedy(route.method, greedy[1] ?? '/', greedy[2] ?? '');
    }
  }

  /** @param path without version and query, still percent-encoded */
  match(method: string, path: string): Match | undefined {
    const found = this.#router.find(method as Method, this.#escapeName(method, path));
    if (found === null) return undefined;
    const route: unknown = found.store;
    return isRoute(route) ? { route, params: found.params } : undefined;
  }

  #addGreedy(method: string, prefix: string, suffix: string): void {
    const shapes = this.#greedy.get(method) ?? [];
    this.#greedy.set(method, shapes);
    let shape = shapes.find((known) => known.prefix === prefix);
    if (shape === undefined) shapes.push((shape = { prefix, suffixes: [] }));
    shape.suffixes.push(suffix);
    shape.suffixes.sort((a, b) => b.length - a.length);
  }

  #escapeName(method: string, path: string): string {
    for (const { prefix, suffixes } of this.#greedy.get(method) ?? []) {
      if (!path.startsWith(prefix)) continue;
      if (this.#literals.has(`${method} ${path}`)) return path;
      const rest = path.slice(prefix.length);
      const suffix = suffixes.find((known) => rest.length > known.length && rest.endsWith(known));
      if (suffix === undefined) return path;
      const name = rest.slice(0, rest.length - suffix.length);
      return name.includes('/') ? prefix + name.replaceAll('/', '%2F') + suffix : path;
    }
    return path;
  }
}

const isRoute = (value: unknown): value is Route => typeof value === 'object' && value !== null && 'handler' in value;
