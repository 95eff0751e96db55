import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { conflict } from '@flotilla/errors';
import type { container } from '@flotilla/proto';
import { hasCode } from '@flotilla/sys';
import type { ContainerContext } from '../containers/context.js';
import { linkedNow } from '../containers/links.js';
import { bundleDir, rootfsDir } from '../containers/settings.js';
import {
  containerEnvironment,
  decodeSpecProcess,
  type OciProcess,
  processCapabilities,
  readHostFacts,
  replaceEnvironment,
} from '../spec/index.js';
import type { ContainerRecord } from '../store/container-record.js';

let available: string[] | undefined;

/**
 * The runtime spec's Process of an exec: the container's own, with what the exec says in its place. A privileged exec
 * has every capability; the system call filter stays the container's, as with dockerd.
 *
 * @throws EngineError `invalidArgument` for a user that the container's files do not have; `conflict` when the configuration that the container was started
 * with is gone.
 */
export async function execProcess(
  { rootfs, settings, store }: ContainerContext,
  record: ContainerRecord,
  config: container.ExecConfig,
  consoleSize: container.TerminalSize | undefined,
): Promise<OciProcess> {
  const { id, config: own, hostConfig } = record.container;
  const linked = linkedNow(store, record).environment;
  const first = decodeSpecProcess(await readSpec(id, join(bundleDir(settings, id), 'config.json')));
  const resolved =
    config.user === ''
      ? undefined
      : await rootfs.resolveUser(rootfsDir(settings, id), config.user, hostConfig.groupAdd);
  const user: OciProcess['user'] = resolved ?? first.user;
  const bounding = config.privileged ? (available ??= readHostFacts().capabilities) : first.capabilities.bounding;
  const { consoleSize: _ofFirst, ...rest } = first;
  const size = consoleSize ?? config.consoleSize;
  return {
    ...rest,
    terminal: config.tty,
    ...(config.tty && size !== undefined ? { consoleSize: { height: size.height, width: size.width } } : {}),
    user,
    args: config.cmd,
    env: replaceEnvironment(
      containerEnvironment({ env: own.env, hostname: own.hostname, terminal: config.tty, linked }),
      config.env,
    ),
    cwd: config.workingDir === '' ? first.cwd : config.workingDir,
    capabilities: processCapabilities(bounding, user.uid),
  };
}

async function readSpec(id: string, path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if (!hasCode(cause, 'ENOENT')) throw cause;
    throw conflict(
      `container ${id} takes no commands until it is restarted: the configuration that it runs with is gone (${path})`,
      { cause },
    );
  }
}
