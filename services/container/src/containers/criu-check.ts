import { execFile } from 'node:child_process';
import { unimplemented } from '@flotilla/errors';

const limitMs = 20_000;

/** What running criu gave; `missing`: there is no such program. */
export type CriuAnswer = { missing: true } | { missing: false; exitCode: number; output: string };

/**
 * @throws EngineError `unimplemented` with the reason why nothing can be written down or brought back on this machine; nothing has been made then.
 */
export async function requireCriu(ask: () => Promise<CriuAnswer> = askCriu): Promise<void> {
  const answer = await ask();
  if (answer.missing) throw unimplemented('checkpoints need criu, which is not installed');
  if (answer.exitCode === 0) return;
  const lines = answer.output.split('\n').filter((line) => line.trim() !== '');
  const reason = lines.findLast((line) => line.startsWith('Error')) ?? lines.at(-1) ?? `exit code ${answer.exitCode}`;
  throw unimplemented(`criu does not work on this machine: criu check: ${reason.trim()}`);
}

function askCriu(): Promise<CriuAnswer> {
  return new Promise((resolve) => {
    execFile('criu', ['check'], { timeout: limitMs }, (error, stdout, stderr) => {
      if (error?.code === 'ENOENT') resolve({ missing: true });
      else
        resolve({
          missing: false,
          exitCode: error === null ? 0 : typeof error.code === 'number' ? error.code : 1,
          output: `${stdout}${stderr}`,
        });
    });
  });
}
