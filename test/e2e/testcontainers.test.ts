import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { GenericContainer, Network, Wait } from 'testcontainers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { enterNamespace } from './enter-namespace.js';
import { startTestEngine, type TestEngine } from './test-engine.js';

/** Serves the file /www/index.html, and says so. */
const webServer = ['sh', '-c', 'mkdir -p /www; echo hello > /www/index.html; echo ready; exec httpd -f -p 80 -h /www'];

const reaper = `
const { request } = require('node:http');
const ask = (method, path) => new Promise((resolve, reject) => {
  const req = request({ socketPath: '/var/run/docker.sock', method, path: '/v1.44' + path }, (res) => {
    let text = '';
    res.on('data', (chunk) => (text += chunk));
    res.on('end', () => resolve({ status: res.statusCode, text }));
  });
  req.on('error', reject);
  req.end();
});
const filters = 'filters=' + encodeURIComponent(JSON.stringify({ label: [process.argv[2]] }));
const all = async () => [
  ...JSON.parse((await ask('GET', '/containers/json?all=1&' + filters)).text).map(({ Id }) => ['container', '/containers/' + Id + '?force=1&v=1']),
  ...JSON.parse((await ask('GET', '/networks?' + filters)).text).map(({ Id }) => ['network', '/networks/' + Id]),
  ...JSON.parse((await ask('GET', '/volumes?' + filters)).text).Volumes.map(({ Name }) => ['volume', '/volumes/' + Name + '?force=1']),
];
(async () => {
  for (const [kind, path] of await all()) console.log(kind, (await ask('DELETE', path)).status);
  console.log('left', (await all()).length);
})();
`;

describe('testcontainers', () => {
  let t: TestEngine;
  let inside: Disposable;
  beforeAll(async () => {
    t = await startTestEngine();
    // The library connects to published ports: as the engine's host does.
    inside = enterNamespace(t.namespace);
    process.env['DOCKER_HOST'] = `unix://${t.engine.socket}`;
    // The image of its reaper cannot be pulled here; what it does is tested below.
    process.env['TESTCONTAINERS_RYUK_DISABLED'] = 'true';
  });
  afterAll(async () => {
    inside[Symbol.dispose]();
    delete process.env['DOCKER_HOST'];
    delete process.env['TESTCONTAINERS_RYUK_DISABLED'];
    await t[Symbol.asyncDispose]();
  });

  it('starts a container and waits for its ports, an HTTP answer, a line of its log, its health', async () => {
    const waits = {
      ports: Wait.forListeningPorts(),
      http: Wait.forHttp('/index.html', 80),
      log: Wait.forLogMessage('ready'),
      shell: Wait.forSuccessfulCommand('wget -q -O - 127.0.0.1/index.html'),
      all: Wait.forAll([Wait.forLogMessage(/rea.y/), Wait.forListeningPorts()]),
    };
    for (const [name, strategy] of Object.entries(waits)) {
      await using web = await new GenericContainer('busybox')
        .withCommand(webServer)
        .withExposedPorts(80)
        .withWaitStrategy(strategy)
        .start();
      await expect
        .poll(() => fetch(`http://${web.getHost()}:${web.getMappedPort(80)}/index.html`).then((r) => r.text()), {
          message: name,
        })
        .toBe('hello\n');
    }
    await using healthy = await new GenericContainer('busybox')
      .withCommand(webServer)
      .withHealthCheck({ test: ['CMD-SHELL', 'test -f /www/index.html'], interval: 200, retries: 50 })
      .withWaitStrategy(Wait.forHealthCheck())
      .start();
    expect(healthy.getName()).not.toBe('');
    await using once = await new GenericContainer('busybox')
      .withCommand(['sh', '-c', 'exit 0'])
      .withWaitStrategy(Wait.forOneShotStartup())
      .start();
    expect(await t.ok('inspect', '-f', '{{.State.ExitCode}}', once.getId())).toBe('0');
  });

  it('execs, copies both ways, reads logs, and restarts', async () => {
    await using box = await new GenericContainer('busybox')
      .withCommand(['sh', '-c', 'echo started; cat /tmp/content; exec sleep 1000'])
      .withCopyContentToContainer([{ content: 'from the test\n', target: '/tmp/content' }])
      .withEnvironment({ COLOUR: 'blue' })
      .withTmpFs({ '/scratch': 'rw' })
      .withUser('root')
      .withWorkingDir('/tmp')
      .withLabels({ made: 'by-test' })
      .start();
    expect(await box.exec(['sh', '-c', 'echo $COLOUR; echo bad >&2; exit 3'])).toMatchObject({
      exitCode: 3,
      stdout: 'blue\n',
      stderr: 'bad\n',
    });
    await box.copyContentToContainer([{ content: 'later\n', target: '/tmp/later', mode: 0o600 }]);
    expect((await box.exec(['sh', '-c', 'cat later; stat -c %a later'])).stdout).toBe('later\n600\n');
    const archive = await box.copyArchiveFromContainer('/tmp/later');
    let bytes = 0;
    for await (const chunk of archive) bytes += (chunk as Buffer).length;
    expect(bytes).toBeGreaterThanOrEqual(1024);
    const logs = await box.logs();
    let text = '';
    logs.on('data', (chunk: Buffer) => (text += chunk.toString()));
    await expect.poll(() => text).toContain('from the test');
    logs.destroy();
    await box.restart({ timeout: 0 });
    expect((await box.exec(['cat', '/tmp/content'])).stdout).toBe('from the test\n');
  });

  it('joins containers by a network, under their aliases', async () => {
    await using network = await new Network().start();
    await using _web = await new GenericContainer('busybox')
      .withCommand(webServer)
      .withNetwork(network)
      .withNetworkAliases('web')
      .withWaitStrategy(Wait.forLogMessage('ready'))
      .start();
    await using client = await new GenericContainer('busybox')
      .withCommand(['sleep', '1000'])
      .withNetwork(network)
      .start();
    await expect
      .poll(async () => (await client.exec(['wget', '-q', '-O', '-', 'web/index.html'])).stdout)
      .toBe('hello\n');
  });

  it('a reaper over a mounted socket finds what was labelled, and removes it', async () => {
    const label = 'org.testcontainers.session-id=reaped';
    await t.ok('network', 'create', '--label', label, 'reaped');
    await t.ok('volume', 'create', '--label', label, 'reaped');
    await t.ok('run', '-d', '--name', 'reaped', '--label', label, '-v', 'reaped:/v', 'busybox', 'sleep', '1000');
    // What Ryuk does: from inside a container, over the mounted socket, list by label and remove one by one.
    const script = join(t.directory, 'reaper.cjs');
    writeFileSync(script, reaper);
    const removed = await t.ok(
      'run',
      ...['--rm', '-v', `${t.engine.socket}:/var/run/docker.sock`, '-v', `${script}:/reaper.cjs:ro`],
      // The machine's own node with its libraries.
      ...['/usr', '/lib', '/lib64'].flatMap((path) => ['-v', `${path}:${path}:ro`]),
      ...['-v', `${process.execPath}:/node:ro`, 'busybox', '/node', '/reaper.cjs', label],
    );
    expect(removed.split('\n')).toEqual(['container 204', 'network 204', 'volume 204', 'left 0']);
    expect(await t.ok('ps', '-aq', '--filter', `label=${label}`)).toBe('');
    expect(await t.ok('network', 'ls', '-q', '--filter', `label=${label}`)).toBe('');
    expect(await t.ok('volume', 'ls', '-q', '--filter', `label=${label}`)).toBe('');
  });
});
