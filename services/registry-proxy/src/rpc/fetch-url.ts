import { internal, invalidArgument, isEngineError, messageOf } from '@flotilla/errors';
import type { registry } from '@flotilla/proto';
import type { HttpTransport } from '../upstream/http-transport.js';

const maxMessageBytes = 256 * 1024;

/** What a URL answers, in pieces; the first message comes with the head of the answer. */
export async function* fetchUrl(
  transport: HttpTransport,
  text: string,
  signal: AbortSignal,
): AsyncGenerator<registry.FetchUrlResponse> {
  const { url, headers } = parseSource(text);
  try {
    const {
      status,
      statusText,
      headers: answered,
      body,
    } = await transport.send({
      method: 'GET',
      url,
      verifyTls: true,
      headers,
      signal,
    });
    // What is destroyed below before its end fails: nobody waits for that.
    body.on('error', () => undefined);
    try {
      if (status >= 400) {
        const sentence = `Got HTTP status code >= 400: ${status} ${statusText}`.trim();
        throw status < 500 ? invalidArgument(sentence) : internal(sentence, { isOutside: true });
      }
      const length = answered.get('content-length') ?? '';
      yield { data: Buffer.alloc(0), totalBytes: /^\d{1,15}$/.test(length) ? BigInt(length) : 0n };
      for await (const chunk of body as AsyncIterable<Buffer>) {
        for (let at = 0; at < chunk.length; at += maxMessageBytes) {
          yield { data: chunk.subarray(at, at + maxMessageBytes), totalBytes: 0n };
        }
      }
    } finally {
      body.destroy();
    }
  } catch (error) {
    signal.throwIfAborted();
    if (isEngineError(error)) throw error;
    throw internal(messageOf(error), { cause: error, isOutside: true });
  }
}

/** The address without what stands before its `@`, which goes into a header. */
function parseSource(text: string): { url: URL; headers: Record<string, string> } {
  let url: URL;
  let login: string;
  try {
    url = new URL(text);
    login = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  } catch (cause) {
    throw invalidArgument('invalid URL to import from', { cause });
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw invalidArgument(`unsupported protocol scheme "${url.protocol.slice(0, -1)}"`);
  }
  url.username = '';
  url.password = '';
  if (login === ':') return { url, headers: {} };
  return { url, headers: { authorization: `Basic ${Buffer.from(login).toString('base64')}` } };
}
