import { invalidArgument } from '@flotilla/errors';

const allowed = '[a-zA-Z0-9][a-zA-Z0-9_.-]';
const localName = new RegExp(`^${allowed}+$`);
/** NAME_MAX of every file system in use. */
const maxLength = 255;

/**
 * Whether a name may become a directory of the local driver. Phrases: moby/moby daemon/volume/local/local.go, validateName.
 *
 * @throws EngineError `invalidArgument`
 */
export function checkLocalName(name: string): void {
  if (Buffer.byteLength(name) === 1) {
    throw invalidArgument('volume name is too short, names should be at least two alphanumeric characters');
  }
  if (!localName.test(name)) {
    throw invalidArgument(
      `${JSON.stringify(name)} includes invalid characters for a local volume name, only ${JSON.stringify(allowed)} are allowed. ` +
        'If you intended to pass a host directory, use absolute path',
    );
  }
  if (name.length > maxLength) {
    throw invalidArgument(`volume name is too long, names should be at most ${maxLength} characters`);
  }
}
