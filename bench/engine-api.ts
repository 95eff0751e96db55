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

  async create(image: string, command: readonly string[], hostConfig: object = {}): Promise<string> {
    const { body } = await this.call('POST', '/containers/create', [201], {
      Image: image,
      Cmd: command,
      HostConfig: hostConfig,
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

  async remove(id: string): Promise<void> {
    await this.call('DELETE', `/containers/${id}?force=1&v=1`, [204]);
  }
}
