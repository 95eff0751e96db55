import { once } from 'node:events';
import { connect } from 'node:net';
import { HttpConnection, type Answer } from './http-client.js';

/** Calls of the Docker API as the measurements need them; every unexpected status throws with the engine's message. */
export class EngineApi {
  readonly socket: string;
  constructor(socket: string) {
    this.socket = socket;
  }

  async call(method: string, path: string, expected: readonly number[], body?: unknown): Promise<Answer> {
    const connection = new HttpConnection(this.socket);
    try {
      const answer = await connection.request(method, `/v1.41${path}`, body);
      if (!expected.includes(answer.status))
        throw new Error(`${method} ${path}: ${answer.status} ${answer.body.toString().slice(0, 400)}`);
      return answer;
    } finally {
      connection.close();
    }
  }

  async create(image: string, command: readonly string[], hostConfig: object = {}, config = {}): Promise<string> {
    const { body } = await this.call('POST', '/containers/create', [201], {
      Image: image,
      Cmd: command,
      HostConfig: hostConfig,
      ...config,
    });
    return (JSON.parse(body.toString()) as { Id: string }).Id;
  }

  async start(id: string): Promise<void> {
    await this.call('POST', `/containers/${id}/start`, [204]);
  }

  async wait(id: string): Promise<number> {
    const { body } = await this.call('POST', `/containers/${id}/wait`, [200]);
    return (JSON.parse(body.toString()) as { StatusCode: number }).StatusCode;
  }

  /** Stop at once: the process has no time to end by itself. */
  async stop(id: string): Promise<void> {
    await this.call('POST', `/containers/${id}/stop?t=0`, [204]);
  }

  /** Run a program in a running container and wait for its end. */
  async exec(id: string, command: readonly string[]): Promise<void> {
    const { body } = await this.call('POST', `/containers/${id}/exec`, [201], { Cmd: command, AttachStdout: true });
    const exec = (JSON.parse(body.toString()) as { Id: string }).Id;
    await this.hijacked(`/exec/${exec}/start`, { Detach: false, Tty: false });
    const { body: after } = await this.call('GET', `/exec/${exec}/json`, [200]);
    const { ExitCode: code } = JSON.parse(after.toString()) as { ExitCode: number | null };
    if (code !== 0) throw new Error(`the program ended with ${String(code)}`);
  }

  /** A request whose answer is a raw stream, read to its end and thrown away. */
  async hijacked(path: string, body: unknown): Promise<void> {
    const json = JSON.stringify(body);
    const socket = connect(this.socket);
    socket.write(
      `POST /v1.41${path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${json.length}\r\n\r\n${json}`,
    );
    let head = '';
    socket.on('data', (chunk: Buffer) => (head += head.length < 64 ? chunk.toString('latin1', 0, 64) : ''));
    await once(socket, 'close');
    if (!head.startsWith('HTTP/1.1 101')) throw new Error(`POST ${path}: ${head}`);
  }

  async remove(id: string): Promise<void> {
    await this.call('DELETE', `/containers/${id}?force=1&v=1`, [204]);
  }
}
