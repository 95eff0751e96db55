import { execFile } from 'node:child_process';
import { programCommand } from './engine.js';

/** What `CheckStore` of the image service finds; a client of it has this shape. */
interface StoreChecker {
  checkStore(request: { repair: boolean; idle: boolean }): AsyncIterable<{
    event?:
      | {
          readonly $case: 'finding';
          readonly value: { kind: number; subject: string; message: string; repaired: boolean };
        }
      | { readonly $case: 'summary'; readonly value: unknown }
      | undefined;
  }>;
}

/**
 * Faults in the store of an image service that does nothing else at the moment, as `message (subject)`; none when every
 * blob, layer and record is right and nothing was left behind.
 */
export async function imageStoreFaults(client: StoreChecker, { repair = false } = {}): Promise<string[]> {
  const faults: string[] = [];
  for await (const { event } of client.checkStore({ repair, idle: true })) {
    if (event?.$case === 'finding' && !event.value.repaired) {
      faults.push(`${event.value.message} (${event.value.subject})`);
    }
  }
  return faults;
}

/** What `flotilla doctor images` says of a running engine. */
export interface ImageStoreReport {
  readonly exitCode: number;
  readonly findings: readonly {
    kind: string;
    subject: string;
    message: string;
    imageIds: string[];
    repaired: boolean;
  }[];
}

/** Run `flotilla doctor images --idle` on an engine: expect `findings` to be empty after whatever was done to it. */
export function examineImageStore(
  { execRoot, bootIdFile }: { readonly execRoot: string; readonly bootIdFile?: string | undefined },
  { repair = false } = {},
): Promise<ImageStoreReport> {
  const args = ['doctor', 'images', '--json', '--idle', '--exec-root', execRoot];
  return new Promise((resolve, reject) => {
    execFile(...programCommand({ bootIdFile }, repair ? [...args, '--repair'] : args), (error, stdout, stderr) => {
      if (stdout === '') reject(new Error(`flotilla doctor images: ${stderr}`, { cause: error }));
      else {
        const { findings } = JSON.parse(stdout) as Pick<ImageStoreReport, 'findings'>;
        resolve({ exitCode: error === null ? 0 : Number(error.code), findings });
      }
    });
  });
}
